"""ALFWorld: what generated games may ask, rooms held out, plans, engines that are shared, the loader of ALFWorld's own games."""

import json
import os
import random
import re
import subprocess
import sys
import threading
from collections import Counter
from importlib.util import find_spec
from itertools import combinations

import pytest

from agentevolve.cli.run import chosen_tasks
from agentevolve.environments import alfworld
from agentevolve.environments.support.alfworld import games
from agentevolve.environments.support.alfworld.plans import names, plan
from agentevolve.load import load_task_set, tasks_of
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Task

# not importorskip: alfworld makes a folder and sets ALFWORLD_DATA when it is imported
if missing := [one for one in alfworld.NEEDS if not find_spec(one)]:
    pytest.skip(f"needs {', '.join(missing)}", allow_module_level=True)

GENERATED = load_task_set("alfworld-generated")
NUMBERS = {split: [first + n for first in games._FIRST.values() for n in numbers] for split, numbers in games.ROOMS.items()}


def task(split: str = "train", seed: int = 0, **data) -> Task:
    return Task(id=f"{split}/{seed}", env="alfworld", split=split, seed=seed, data=data)


def asked(game: dict) -> str:
    return re.search(r"Your task is to: (.*)\.", game["grammar"])[1]


def listing(number: int) -> list[tuple[str, int]]:
    """What the first look at a room shows of it."""
    return sorted(Counter(one.type for one in games.floor_plan(number).receptacles).items())


# -- the generator


def test_rooms_are_held_out_and_none_looks_like_one_of_another_split():
    for one, other in combinations(NUMBERS, 2):
        assert not set(NUMBERS[one]) & set(NUMBERS[other])
        assert not any(listing(a) == listing(b) for a in NUMBERS[one] for b in NUMBERS[other])
    constants = games._package("constants")
    assert set(NUMBERS["test"]) == set(constants.TEST_SCENE_NUMBERS)
    assert set(NUMBERS["train"]) | set(NUMBERS["val"]) == set(constants.TRAIN_SCENE_NUMBERS)


def test_each_split_has_all_six_kinds_of_tasks_and_all_rooms():
    forms = {
        "put (a|some) \\w+ (in|on) \\w+",
        "(look at|examine the) \\w+ (under|with) the desklamp",
        "(put a clean|clean some) \\w+ (in|and put it in) \\w+",
        "(put a hot|heat some) \\w+ (in|and put it in) \\w+",
        "(put a cool|cool some) \\w+ (in|and put it in) \\w+",
        "(put two|find two) \\w+ (in|and put them in) \\w+",
    }
    for split in GENERATED.splits:
        made = [games.game(split, one.seed) for one in tasks_of(GENERATED, split, limit=300)]
        seen = Counter(form for game in made for form in forms if re.fullmatch(form, asked(game)))
        assert set(seen) == forms
        assert min(seen.values()) > 25
        assert sum(seen.values()) == len(made)
        assert len({game["pddl_problem"] for game in made}) == len(made)


@pytest.mark.parametrize("kind", games.KINDS)
def test_goals_are_possible_and_nothing_that_nobody_would_ask(kind):
    constants = games._package("constants")
    for numbers in NUMBERS.values():
        assert any(games.goals_of(kind, number) for number in numbers)
        for number in numbers:
            types = {one.type for one in games.floor_plan(number).receptacles}
            for thing, where in games.goals_of(kind, number):
                if kind == "look_at_obj_in_light":
                    assert where == "DeskLamp"
                    continue
                needs, tool = games.KINDS[kind]
                assert where in types - {tool}
                assert thing in constants.VAL_RECEPTACLE_OBJECTS[where]
                assert not needs or (thing in constants.VAL_ACTION_OBJECTS[needs] and tool in types)
                assert not (where == "GarbageCan" and (needs or thing == "SoapBar"))


def test_a_game_is_not_won_at_the_start_and_its_thing_is_neither_where_it_goes_nor_treated():
    for split in GENERATED.splits:
        for one in tasks_of(GENERATED, split, limit=100):
            steps = plan(games.game(split, one.seed)["pddl_problem"])
            assert len(steps) >= 3
            taken = [step.split() for step in steps if step.startswith("take")]
            to = [step.split() for step in steps if step.startswith("move")]
            tools = [step.split()[-2] for step in steps if step.split()[0] in ("clean", "heat", "cool")]
            hosts = {words[4] for words in taken}
            assert not hosts & ({words[4] for words in to} | set(tools))
            assert len(set(map(tuple, taken))) == len(taken)


def test_the_same_games_are_made_under_any_hash_seed():
    code = (
        "import hashlib, json; from agentevolve.environments.support.alfworld import games\n"
        "made = [games.game(split, seed) for split in games.ROOMS for seed in range(40)]\n"
        "print(hashlib.sha256(json.dumps(made).encode()).hexdigest())"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(prints) == 1


# -- the engine


def bare(game: dict):
    """The package's own engine, with its own names."""
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld.envs import PddlEnv

    env = AlfredDemangler(PddlEnv(textworld.EnvInfos(admissible_commands=True, won=True)), shuffle=False)
    env.load(game)
    return env, env.reset()


@pytest.fixture
def package(monkeypatch, tmp_path):
    """alfworld sets ALFWORLD_DATA and makes that folder when it is imported."""
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "data"))


@pytest.mark.parametrize("seed", [20_001, 20_002])
def test_everything_reads_as_in_the_packages_own_engine(package, seed):
    env, one = alfworld.make(), task("test", seed)
    own, state = bare(games.game("test", seed))
    text, info = env.reset(one)
    assert state.feedback.strip() == f"-= Welcome to TextWorld, ALFRED! =-\n\n{text}\n\n{info['notes']}"
    dice = random.Random(seed)
    way = [dice.choice(info["actions"]), "fly to the moon", *env.oracle(one)]
    for action in way:
        assert info["actions"] == state["admissible_commands"]
        step = env.step(action)
        state, score, done = own.step(action)
        assert (step.observation, step.info["score"], step.terminated) == (state.feedback.strip(), score, done)
        info = step.info
    assert step.terminated


def test_names_are_the_packages_own(package):
    from alfworld.agents.utils.misc import Demangler
    from textworld.generator.game import EntityInfo

    problem = games.game("val", 10_000)["pddl_problem"].lower()
    ids = set(re.findall(r"\w+_bar_\w+", problem))
    own = Demangler(game_infos={id: EntityInfo(id, "object") for id in ids})
    assert names(ids) == {id: own.demangle_alfred_name(id) for id in ids}


def test_engines_are_shared_and_each_plays_its_own_game():
    tasks = [task("train", seed) for seed in range(3)]
    plans, envs = [alfworld.make().oracle(one) for one in tasks], [alfworld.make() for _ in tasks]
    for env, one in zip(envs, tasks, strict=True):
        env.reset(one)
    engines = [env._engine for env in envs]
    assert len(set(map(id, engines))) == 3
    won = set()
    for turn in range(max(map(len, plans))):
        for env, one, steps in zip(envs, tasks, plans, strict=True):
            if turn < len(steps) and env.step(steps[turn]).terminated:
                won.add(one.id)
    assert won == {one.id for one in tasks}
    env = alfworld.make()
    env.reset(tasks[0])
    assert env._engine in engines
    env.close()
    env.close()
    with pytest.raises(RuntimeError, match="reset first"):
        env.step("look")


def played(one: Task) -> list:
    env = alfworld.make()
    seen = [env.reset(one)]
    return seen + [env.step(action) for action in env.oracle(one)]


def test_a_game_goes_on_when_textworlds_memory_of_facts_is_cleared():
    from agentevolve.environments.support.alfworld.engine import facts_ever

    env, one = alfworld.make(), task("train", 4)
    actions, seen = env.oracle(one), [env.reset(one)]
    for action in actions:
        facts_ever.clear()
        seen.append(env.step(action))
    assert seen[-1].terminated
    assert seen == played(one)


def test_threads_see_what_one_alone_sees():
    tasks = [task("val", 10_000 + n) for n in range(4)]
    alone, beside = {one.id: played(one) for one in tasks}, {}
    threads = [threading.Thread(target=lambda one=one: beside.update({one.id: played(one)})) for one in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert beside == alone


def test_nothing_is_printed_and_nothing_of_the_process_is_changed():
    code = """
import os, random, sys
before = os.getcwd(), dict(os.environ), sys.argv, sys.stdout, random.getstate()
from agentevolve.environments import alfworld
from agentevolve.records import Task
env, task = alfworld.make(), Task(id="one", env="alfworld", split="train", seed=2)
env.reset(task)
for action in ["", *env.oracle(task)]:
    env.step(action)
assert env._engine is None
assert before == (os.getcwd(), dict(os.environ), sys.argv, sys.stdout, random.getstate())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_hidden_actions_are_not_listed_but_understood():
    env = alfworld.make()
    _, shown = env.reset(task())
    _, info = env.reset(task(hide=["help", "look"]))
    assert set(shown["actions"]) - set(info["actions"]) == {"help", "look"}
    assert "Available commands" in env.step(" help\n").observation
    env.close()


# -- settings, seeds, and ALFWorld's own games


@pytest.mark.parametrize(
    ("data", "word"),
    [({"sauce": 1}, "sauce"), ({"source": "mine"}, "mine"), ({"limit": 0}, "limit"), ({"hide": "look"}, "hide")],
)
def test_settings_are_checked(data, word):
    with pytest.raises(AgentevolveError, match=word):
        alfworld.check(data)


def test_a_seed_of_another_split_is_refused():
    for split, seed in (("train", 10_000), ("train", -1), ("val", 0), ("test", 10_000)):
        with pytest.raises(AgentevolveError, match="seed"):
            alfworld.make().reset(task(split, seed))


def test_without_alfworlds_own_games_one_line_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    with pytest.raises(AgentevolveError, match=r"alfworld-download.*ALFWORLD_DATA.*alfworld-generated") as told:
        alfworld.make().reset(task(source="original"))
    assert alfworld.absent({"source": "original"}) == str(told.value)
    assert alfworld.absent(GENERATED.settings) == ""


@pytest.fixture
def own(monkeypatch, tmp_path):
    """A folder like alfworld-download's, with generated games in it."""
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    folders = {"pick_b-A-None-B-1/trial_2": True, "pick_a-A-None-B-1/trial_1": True, "pick_a-A-None-B-1/trial_0": False}
    folders |= {"pick_and_place_with_movable_recep-A-B-C-1/trial_3": True, "pick_a-AppleSliced-None-B-1/trial_4": True}
    for seed, (folder, solvable) in enumerate(folders.items()):
        path = tmp_path / "json_2.1.1" / "valid_unseen" / folder
        path.mkdir(parents=True)
        game = {**games.game("train", seed), "solvable": solvable, "walkthrough": ["look"]}
        (path / "game.tw-pddl").write_text(json.dumps(game), "utf-8")


def test_alfworlds_own_games_are_counted_in_order_and_won(own):
    env = alfworld.make()
    for seed, made in ((20_000, 1), (20_001, 0)):
        text, _ = env.reset(task("test", seed, source="original"))
        assert text == env.reset(task("train", made))[0]
        actions = env.oracle(task("test", seed, source="original"))
        env.reset(task("test", seed, source="original"))
        steps = [env.step(action) for action in actions]
        assert [step.terminated for step in steps] == [False] * (len(steps) - 1) + [True]
    with pytest.raises(AgentevolveError, match="20000–20001"):
        env.reset(task("test", 20_002, source="original"))


def test_a_game_whose_plan_cannot_be_read_off_has_alfworlds_own(own, tmp_path):
    path = next(tmp_path.rglob("pick_b*/*/game.tw-pddl"))
    game = json.loads(path.read_text("utf-8"))
    start, _, goal = game["pddl_problem"].partition("(:goal")
    path.write_text(json.dumps({**game, "pddl_problem": re.sub(r"\(inReceptacle .*\)", "", start) + "(:goal" + goal}), "utf-8")
    assert alfworld.make().oracle(task("test", 20_001, source="original")) == ["look"]


def test_missing_data_is_told_before_anything_is_run(monkeypatch, tmp_path):
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    with pytest.raises(AgentevolveError, match=r"task set 'alfworld': .*alfworld-download"):
        chosen_tasks("alfworld", "val", 1)
    assert len(chosen_tasks("alfworld-generated", "val", 1)) == 1
