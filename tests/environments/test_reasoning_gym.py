"""Reasoning Gym: shipped answers are right, questions are the same in every process, and no answer is executed."""

import importlib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("reasoning_gym")

from agentevolve.environments.reasoning_gym import ReasoningGym, _datasets, _servant, check
from agentevolve.environments.support import reasoner as _reasoner
from agentevolve.load import load_environment, load_task_set
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Task

NO_ANSWER = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
PACKAGE = Path(find_spec("reasoning_gym").submodule_search_locations[0])


def task(dataset: str, seed: int = 0, split: str = "train", **data) -> Task:
    return Task(id=f"{dataset}/{split}/{seed}", env="reasoning_gym", split=split, seed=seed, data={"dataset": dataset, **data})


@pytest.mark.parametrize("dataset", sorted(set(_datasets()) - NO_ANSWER))
def test_the_shipped_answer_is_right(dataset):
    env = ReasoningGym()
    for one in (task(dataset, 5), task(dataset, 20_007, "test")):
        first, info = env.reset(one)
        assert first == first.strip() != ""
        assert info["score"] == 0
        step = env.step(env.oracle(one)[0])
        assert (step.observation, step.terminated, step.info["score"]) == ("Right.", True, pytest.approx(1.0))
        env.reset(one)
        assert env.step("").info["score"] == 0


@pytest.mark.parametrize("dataset", sorted(NO_ANSWER))
def test_a_dataset_without_answers_says_so(dataset):
    env = ReasoningGym()
    assert env.reset(task(dataset))[0]
    with pytest.raises(AgentevolveError, match="ships no answer"):
        env.oracle(task(dataset))
    assert env.sample(random.Random(0)) == "0"


def test_the_known_datasets_are_the_packages():
    with pytest.raises(AgentevolveError, match="known: ") as refused:
        _servant.ask("question", dataset="no such", config={}, seed=0)
    registered = str(refused.value).partition("known: ")[2].split(", ")
    assert sorted({*_datasets(), "composite"}) == registered


def questions(*seeds: int) -> list[str]:
    """Questions of each dataset."""
    return [ReasoningGym().reset(task(dataset, seed))[0] for dataset in _datasets() for seed in seeds]


def test_questions_are_the_same_in_another_process():
    code = "import json, test_reasoning_gym as t; print(json.dumps(t.questions(4)))"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(told.stdout.splitlines()[-1]) == questions(3, 4)[1::2]
    assert told.stderr == ""


@pytest.mark.parametrize(
    "dataset", ["chain_sum", "gsm_symbolic", "list_functions", "acre", "survo", "word_ladder", "figlet_font"]
)
def test_the_items_are_the_packages(dataset):
    code = (
        "import json, random, numpy, reasoning_gym as gym\nfound = []\nfor seed in (3, 30_003):\n"
        f"    made = gym.create_dataset({dataset!r}, seed=seed, size=1)\n    random.seed(seed)\n    numpy.random.seed(seed)\n"
        "    found.append(made[0]['question'])\nprint(json.dumps(found))"
    )
    bare = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True
    )  # fmt: skip
    ours = [_servant.ask("question", dataset=dataset, config={}, seed=seed) for seed in (3, 30_003)]
    assert ours == json.loads(bare.stdout.splitlines()[-1])


def test_our_random_numbers_and_output_are_left_alone(capfd):
    random.seed(1)
    before = random.getstate()
    env = ReasoningGym()
    for dataset in ("list_functions", "pool_matrix", "sokoban", "codeio"):
        env.reset(task(dataset))
        env.step("1")
    assert random.getstate() == before
    assert capfd.readouterr() == ("", "")


SMALL = {"dataset": "spell_backward", "config": {"max_word_len": 3}}


def test_no_question_is_in_two_splits_however_few_there_are():
    env, found = ReasoningGym(), {}
    for split, first in (("train", 0), ("val", 10_000), ("test", 20_000)):
        texts = [env.reset(task(seed=seed, split=split, **SMALL))[0] for seed in range(first, first + 300)]
        found[split] = set(texts)
        assert len(found[split]) < len(texts), "the dataset is not small"
    assert not found["train"] & found["val"]
    assert not found["train"] & found["test"]
    assert not found["val"] & found["test"]


def test_a_dataset_of_one_question_is_refused():
    config = {"min_n": 7, "max_n": 7}
    served = []
    for split, seed in (("train", 0), ("val", 10_000), ("test", 20_000)):
        try:
            served.append(ReasoningGym().reset(task("count_bits", seed, split, config=config))[0])
        except AgentevolveError as refused:
            assert "too much alike" in str(refused)
    assert len(served) == 1


# what evaluates text, as far as a search of the package's source finds it, and what it evaluates
EVALUATES = {
    "algorithmic/binary_matrix.py": "answer", "games/n_queens.py": "answer", "algorithmic/spiral_matrix.py": "answer",
    "algorithmic/string_insertion.py": "answer", "games/countdown.py": "answer", "games/puzzle24.py": "answer",
    "algebra/intermediate_integration.py": "answer", "algebra/polynomial_multiplication.py": "answer",
    "algebra/simple_integration.py": "answer", "algorithmic/number_sorting.py": "the item's own answer",
    "arithmetic/bitwise_arithmetic.py": "the question", "arithmetic/basic_arithmetic.py": "the question",
    "arithmetic/gsm_symbolic/generators_00_49.py": "numbers", "arithmetic/gsm_symbolic/generators_50_99.py": "numbers",
    "code/codeio.py": "shipped code", "logic/propositional_logic.py": "its own parser",
}  # fmt: skip


def test_everything_that_evaluates_is_known():
    finds = re.compile(r"(?<![\w.])(eval|exec)\(|(?<!def )\bparse_expr\(|sympify\(|\bS\(|pickle|literal_eval|yaml\.")
    found = {
        str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if finds.search(path.read_text("utf-8"))
    }  # fmt: skip
    assert {path for path in found if not path.startswith(("coaching/", "code/contrib/", "composite."))} == set(EVALUATES)
    modules = {path for path, what in EVALUATES.items() if what == "answer"}
    guarded = (*_reasoner.LITERALS, *_reasoner.SUMS, *_reasoner.FORMULAS)
    assert {Path(path).stem for path in modules} == set(guarded)


@pytest.mark.parametrize("dataset", [*_reasoner.LITERALS, *_reasoner.SUMS, *_reasoner.FORMULAS])
def test_no_answer_is_executed(dataset, tmp_path):
    mark = tmp_path / "executed"
    touch = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    # the bare package does execute it, so that this test can fail
    gym = importlib.import_module("reasoning_gym")
    made = gym.create_dataset(dataset, seed=1, size=1)
    made.score_answer(touch, made[0])
    assert mark.exists()
    mark.unlink()
    env, one = ReasoningGym(), task(dataset, tries=100)
    env.reset(one)
    for answer in (touch, f"[{touch}]", f"1 if {touch} else 2", f"<answer>{touch}</answer>", f"(lambda: {touch})()", "x.diff(x)"):
        assert env.step(answer).info["score"] < 1
        assert not mark.exists()
    assert env.step(env.oracle(one)[0]).observation == "Right."


def test_an_answer_that_takes_for_ever_is_no_answer_and_the_next_one_counts():
    env, one = ReasoningGym(), task("simple_integration", tries=5)
    env.reset(one)
    before, _servant.patience = _servant.patience, 5.0
    try:
        started = time.monotonic()
        assert env.step("9**9**9**9**9").info["score"] == 0
        assert time.monotonic() - started < 15
    finally:
        _servant.patience = before
    assert env.step(env.oracle(one)[0]).observation == "Right."


@pytest.mark.parametrize(
    ("dataset", "wrong"),
    [("game_of_life_halting", "perhaps"), ("puzzle24", "6 + 6 + 6 + 6"), ("coin_flip", "0")],
)
def test_careless_scorers_are_kept_from_what_they_would_take(dataset, wrong):
    gym, env = importlib.import_module("reasoning_gym"), ReasoningGym()
    made = gym.create_dataset(dataset, seed=0, size=10)
    assert max(made.score_answer(wrong, made[number]) for number in range(10)) == 1
    for seed in range(10):
        env.reset(task(dataset, seed))
        assert env.step(wrong).info["score"] < 1


@pytest.mark.parametrize("dataset", sorted(set(_datasets()) - NO_ANSWER))
def test_no_one_answer_is_right_for_every_question(dataset):
    for answer in ("0", "1", "no", "True", "[]"):
        items = ({"dataset": dataset, "config": {}, "seed": seed} for seed in range(100, 108))
        assert not all(_servant.ask("score", reply=answer, **item) == 1 for item in items)


def test_the_answer_is_taken_from_its_tags():
    env, one = ReasoningGym(), task("chain_sum", tries=10)
    env.reset(one)
    answer = env.oracle(one)[0]
    assert env.step(f"{answer} is my answer, or <answer>0.5</answer>").info["score"] < 1
    assert env.step(f"<answer>17.5</answer> no: <answer> {answer}\n</answer>, I think").info["score"] == 1
    env.reset(one)
    assert env.step(f"so <answer>{answer}").info["score"] == 1


def test_tries_count_and_the_best_answer_stays():
    env, one = ReasoningGym(), task("word_sorting", tries=3)
    env.reset(one)
    words = env.oracle(one)[0].split(", ")
    partly = env.step(", ".join([*words[:-2], words[-1], words[-2]]))
    assert 0 < partly.info["score"] == partly.reward < 1
    assert partly.observation.startswith("Partly right: 0.")
    assert partly.observation.endswith("2 tries are left.")
    wrong = env.step("nothing of the kind")
    assert (wrong.reward, wrong.info["score"], wrong.observation) == (0, partly.info["score"], "Wrong. One try is left.")
    right = env.step(", ".join(words))
    assert partly.reward + wrong.reward + right.reward == pytest.approx(1)
    assert right.terminated
    with pytest.raises(RuntimeError, match="reset first"):
        env.step("more")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "unknown dataset ''; known: .*chain_sum"),
        ({"dataset": "chain"}, "unknown dataset 'chain'; known: .*chain_sum"),
        ({"dataset": "chain_sum", "size": 5}, "unknown key 'size'; known: dataset, config, tries"),
        ({"dataset": "chain_sum", "config": {"seed": 5}}, "settings.config"),
        ({"dataset": "chain_sum", "config": []}, "settings.config"),
        ({"dataset": "chain_sum", "tries": 0}, "settings.tries"),
    ],
)
def test_unusable_settings_are_named(data, said):
    with pytest.raises(AgentevolveError, match=said):
        check(data)


@pytest.mark.parametrize("config", [{"digits": 3}, {"min_terms": 0}, {"min_terms": "many"}])
def test_unusable_options_are_named(config):
    with pytest.raises(AgentevolveError, match=r"settings\.config: chain_sum does not take it.*known: allow_negation, max"):
        ReasoningGym().reset(task("chain_sum", config=config))


def test_options_count():
    shouted = task("word_sorting", config={"transformation": "uppercase", "min_words": 3, "max_words": 3})
    answer = ReasoningGym().oracle(shouted)[0]
    assert answer == answer.upper()
    assert answer.count(",") == 2


def test_a_seed_of_another_split_is_refused():
    for split, seed in (("train", 10_000), ("train", -1), ("val", 0), ("test", 10_000)):
        with pytest.raises(AgentevolveError, match="its seeds are"):
            ReasoningGym().reset(task("chain_sum", seed, split))


def test_many_threads_share_one_process():
    found = []

    def play(seed: int) -> None:
        env, one = ReasoningGym(), task("chain_sum", seed)
        env.reset(one)
        found.append(env.step(env.oracle(one)[0]).info["score"])

    threads = [threading.Thread(target=play, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1.0] * 16


def test_a_lost_process_is_replaced_and_it_goes_with_ours():
    env, one = ReasoningGym(), task("chain_sum")
    first, _ = env.reset(one)
    _servant._process.kill()
    _servant._process.wait()
    assert env.reset(one)[0] == first
    code = (
        "import test_reasoning_gym as t; t.ReasoningGym().reset(t.task('chain_sum'))\n"
        "print(t._servant._process.pid, flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    servant = Path(f"/proc/{int(other.stdout.readline())}/cmdline")
    assert not servant.parent.parent.exists() or b"reasoner" in servant.read_bytes()
    other.kill()
    other.communicate()
    until = time.monotonic() + 10
    while servant.exists() and servant.read_bytes():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_without_the_package_settings_are_checked_by_their_types(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    _datasets.cache_clear()
    try:
        assert load_task_set("rg-chain-sum").settings["dataset"] == "chain_sum"
        check({"dataset": "no such"})
        with pytest.raises(AgentevolveError, match=r"settings\.dataset"):
            check({"dataset": 5})
        with pytest.raises(AgentevolveError, match=r"agentevolve\[reasoning-gym\]"):
            load_environment("reasoning_gym")
    finally:
        _datasets.cache_clear()
