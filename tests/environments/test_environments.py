"""One sweep over every shipped task set: whatever the environment, its contract holds.

A set whose extra is not installed is skipped, and says so. `-m slow` takes more tasks of the sets that are slow to start.
"""

import importlib
import json
import random
import subprocess
import sys
from importlib.util import find_spec
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from agentevolve.load import DOORS, environments, extra, load_environment, load_task_set, needs, task_sets, tasks_of
from agentevolve.models.stand_ins import at_random
from agentevolve.protocols import AgentevolveError, Environment
from agentevolve.records import SOLVED, SPLITS, Task

MALFORMED = [
    "",
    "   ",
    "x" * 10_000,
    "\x00\x07\x1b[2J\r\n",
    "nimm die Münze, 日本語で",
    "\ud800 half a pair",
    "look around\ninventory",
    "e\nc\no0\nshutdown\ne",
    "'; drop table tasks; -- \\ \" %s {} ${PATH}",
    '{"name": "no_such_tool", "arguments": {}}',
    '{"name": "__import__", "arguments": {"name": "os"}}',
    '{"name": "x", "arguments": {"a": ',
    '{"name": 5}',
    '[{"name": "x", "arguments": []}, 7]',
    "[" * 5_000,
]
SEEN = {"actions", "tools", "notes", "score", "raw"}  # all that an info may hold
TASKS = 20  # of each split that the oracle plays
FEWER = {"textworld": 3, "alfworld": 6, "scienceworld": 8}  # environments that take seconds a game; -m slow plays TASKS of them
# sets whose splits may show the same first text, and why
SAME_TEXT = {
    "coin": "a first room is one of few; where the coin is, which differs, is seen later",
    "cooking": "a kitchen's first sight is one of few; the recipe, which differs, is read later",
    "mapreader-easy": "three rooms by their names: 5 of the first 100 val tasks look like one of the 1,000 train tasks",
    "simonsays": "a first command is one of few",
    "tau2-telecom": "all tasks share five tickets; the faults behind them differ",
}
# sets in which doing nothing scores, and why
NOTHING = {}


def lacking(name: str) -> str:
    """What of a set is not on this machine: its extra, or data that the user brings."""
    task_set = load_task_set(name)
    if not all(find_spec(one) for one in needs(task_set.env)):
        return f"needs the extra {extra(task_set.env)}"
    module = importlib.import_module(f"agentevolve.environments.{task_set.env}")
    return module.absent(task_set.settings) if hasattr(module, "absent") else ""


SETS = [pytest.param(name, marks=pytest.mark.skip(why) if (why := lacking(name)) else ()) for name in sorted(task_sets())]
every_set = pytest.mark.parametrize("name", SETS)


def sampled(name: str, split: str, count: int = 5) -> list[Task]:
    """Tasks spread over the whole split."""
    tasks = tasks_of(load_task_set(name), split)
    return tasks[:: max(1, len(tasks) // count)][:count]


def made(name: str) -> Environment:
    return load_environment(load_task_set(name).env)()


def splits_of(name: str) -> list[str]:
    return [split for split in SPLITS if split in load_task_set(name).splits]


def any_action(env: Environment, first: dict, info: dict, dice: random.Random) -> str:
    """What the random arm does."""
    return at_random(env, info.get("actions", ()), first.get("tools", ()), dice)


def transcript(name: str) -> list:
    """All that is seen when fixed dice play one task of each split, twice, with another task in between."""
    env, seen = made(name), []
    for split in splits_of(name):
        one, other = sampled(name, split, 2)
        for task in (one, other, one):
            dice, (observation, first) = random.Random(task.id), env.reset(task)
            info = first
            seen.append([task.id, observation, info])
            for _ in range(12):
                step = env.step(any_action(env, first, info, dice))
                seen[-1].append(step)
                if step.terminated or step.truncated:
                    break
                info = step.info
            env.close()
    return json.loads(json.dumps(seen))


def oracle_solves(name: str, count: int) -> None:
    env, task_set = made(name), load_task_set(name)
    known = {id for ids in task_set.misses.values() for id in ids}
    for task in [task for split in splits_of(name) for task in sampled(name, split, count)]:
        actions = env.oracle(task)
        _, info = env.reset(task)
        score, ended = info["score"], False
        for action in actions:
            assert not ended, f"{task.id}: the plan goes on after the end"
            _, reward, terminated, truncated, info = env.step(action)
            score += reward
            assert score == pytest.approx(info["score"])
            ended = terminated or truncated
        assert (score >= SOLVED and terminated) or task.id in known, task.id
    env.close()


@every_set
def test_the_oracle_solves_each_split_and_rewards_sum_to_the_score(name):
    oracle_solves(name, FEWER.get(load_task_set(name).env, TASKS))


@pytest.mark.slow
@pytest.mark.parametrize("name", [one for one in SETS if load_task_set(one.values[0]).env in FEWER])
def test_the_oracle_solves_each_split_of_what_is_slow(name):
    oracle_solves(name, TASKS)


@every_set
def test_the_first_look_is_whole(name):
    env = made(name)
    observation, info = env.reset(sampled(name, "test" if "test" in splits_of(name) else "val", 1)[0])
    assert observation == observation.strip() != ""
    assert set(info) <= SEEN
    assert list(info.get("actions", [])) == sorted(set(info.get("actions", [])))
    assert not set(info.get("actions", [])) & set(load_task_set(name).settings.get("hide", []))
    assert info["score"] == 0
    for tool in info.get("tools", ()):
        assert set(tool) == {"type", "function"} and tool["function"]["name"] and "$ref" not in json.dumps(tool)
    env.close()


@every_set
def test_a_task_is_the_same_again_and_in_another_process(name):
    here = transcript(name)
    for once, other, again in zip(here[::3], here[1::3], here[2::3], strict=True):
        assert once == again
        assert once != other
    code = f"import json; from test_environments import transcript; print(json.dumps(transcript({name!r})))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout.splitlines()[-1]) == here


@every_set
def test_malformed_actions_are_answered(name):
    env, task = made(name), sampled(name, splits_of(name)[0], 1)[0]
    ended = True
    for action in MALFORMED:
        if ended:
            env.reset(task)
        observation, _, terminated, truncated, info = env.step(action)
        assert isinstance(observation, str)
        assert info["score"] < SOLVED
        ended = terminated or truncated
        assert observation or ended
    env.close()
    env.close()


@every_set
def test_doing_nothing_scores_nothing(name):
    env = made(name)
    for task in [sampled(name, split, 1)[0] for split in splits_of(name)]:
        _, info = env.reset(task)
        for _ in range(200):
            _, _, terminated, truncated, info = env.step("")
            if terminated or truncated:
                break
        assert terminated or truncated, f"{task.id}: nothing ends it"
        assert info["score"] == 0 or name in NOTHING
    env.close()


@every_set
def test_the_plan_is_nowhere_to_be_seen(name):
    env = made(name)
    for task in [sampled(name, split, 2)[-1] for split in splits_of(name)]:
        plan = env.oracle(task)
        observation, info = env.reset(task)
        dice, first, seen = random.Random(task.id), info, [task.prompt, observation, info]
        for _ in range(5):
            step = env.step(any_action(env, first, info, dice))
            assert set(step.info) <= SEEN
            info = step.info
            seen += [step.observation, {key: value for key, value in step.info.items() if key != "actions"}]
            if step.terminated or step.truncated:
                break
        text = json.dumps(seen, ensure_ascii=False)
        if len(plan) > 2:
            for glue in (", ", "; ", "\\n", '", "'):
                assert glue.join(plan) not in text
        assert not any(len(action) > 80 and json.dumps(action, ensure_ascii=False)[1:-1] in text for action in plan)
    env.close()


@every_set
def test_no_task_and_no_text_is_in_two_splits(name):
    ranges = sorted(split.seeds for split in load_task_set(name).splits.values())
    assert all(a[1] <= b[0] for a, b in pairwise(ranges))
    env, texts = made(name), {}
    for split in splits_of(name):
        opened = [env.reset(task) for task in sampled(name, split, FEWER.get(load_task_set(name).env, TASKS))]
        texts[split] = {f"{info.get('notes', '')}\n{observation}" for observation, info in opened}
    env.close()
    if name not in SAME_TEXT:
        assert all(not texts[a] & texts[b] for a, b in combinations(texts, 2))


@every_set
def test_the_measured_figures_are_there(name):
    arms = {figure.arm: figure for figure in load_task_set(name).measured}
    assert set(arms) == {"random", "oracle"}
    for figure in arms.values():
        assert figure.low <= figure.success <= figure.high
        assert name in figure.command


@pytest.mark.parametrize("name", environments())
def test_a_missing_package_names_its_extra_and_the_others_work(name):
    name += ":http://127.0.0.1:9" if name in DOORS else ""
    if all(find_spec(one) for one in needs(name)):
        assert callable(load_environment(name))
    else:
        with pytest.raises(AgentevolveError, match=rf'pip install "agentevolve\[{extra(name)}\]"'):
            load_environment(name)


HEADINGS = ("Description", "Observation", "Actions", "Reward", "Termination", "Splits", "Source")


@pytest.mark.parametrize("name", environments())
def test_each_file_is_short_and_has_the_fixed_headings(name):
    text = (Path(__file__).parents[2] / "environments" / f"{name}.py").read_text("utf-8")
    assert len(text.splitlines()) <= 200
    headings = [line.split(":")[0] for line in text.split('"""')[1].splitlines() if line.split(":")[0] in HEADINGS]
    assert headings == list(HEADINGS)
