"""One sweep over every shipped task set: whatever the environment, its contract holds."""

import json
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from agentevolve.load import load_environment, load_task_set, task_sets, tasks_of
from agentevolve.protocols import Environment
from agentevolve.records import SOLVED, SPLITS, Task

SETS = sorted(task_sets())
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
]


def sampled(name: str, split: str, count: int = 5) -> list[Task]:
    """Tasks spread over the whole split."""
    tasks = tasks_of(load_task_set(name), split)
    return tasks[:: len(tasks) // count][:count]


def made(name: str) -> Environment:
    return load_environment(load_task_set(name).env)()


def transcript(name: str) -> list:
    """All that is seen when fixed dice play one task of each split, twice, with another task in between."""
    env, seen = made(name), []
    for split in SPLITS:
        one, other = sampled(name, split, 2)
        for task in (one, other, one):
            env.oracle(task)
            dice, (observation, info) = random.Random(task.id), env.reset(task)
            seen.append([task.id, observation, info])
            for _ in range(12):
                step = env.step(dice.choice(info["actions"]))
                seen[-1].append(step)
                if step.terminated or step.truncated:
                    break
                info = step.info
            env.close()
    return json.loads(json.dumps(seen))


@pytest.mark.parametrize("name", SETS)
def test_the_oracle_solves_each_split_and_rewards_sum_to_the_score(name):
    env = made(name)
    for task in [task for split in SPLITS for task in sampled(name, split)]:
        actions = env.oracle(task)
        _, info = env.reset(task)
        score = info["score"]
        for turn, action in enumerate(actions, 1):
            _, reward, terminated, truncated, info = env.step(action)
            score += reward
            assert score == pytest.approx(info["score"])
            assert (terminated or truncated) == (turn == len(actions)), task.id
        assert score >= SOLVED, task.id
        assert terminated, task.id
    env.close()


@pytest.mark.parametrize("name", SETS)
def test_the_first_look_is_whole(name):
    env = made(name)
    observation, info = env.reset(sampled(name, "train", 1)[0])
    assert observation == observation.strip() != ""
    assert "  " not in observation
    assert info["actions"] == sorted(set(info["actions"])) != []
    assert not set(info["actions"]) & set(load_task_set(name).settings.get("hide", []))
    assert info["score"] == 0
    assert info["notes"]
    env.close()


@pytest.mark.parametrize("name", SETS)
def test_a_task_is_the_same_again_and_in_another_process(name):
    here = transcript(name)
    for once, other, again in zip(here[::3], here[1::3], here[2::3], strict=True):
        assert once == again
        assert once != other
    code = f"import json; from test_environments import transcript; print(json.dumps(transcript({name!r})))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == here


@pytest.mark.parametrize("name", SETS)
def test_malformed_actions_are_answered(name):
    env, task = made(name), sampled(name, "train", 1)[0]
    ended = True
    for action in MALFORMED:
        if ended:
            env.reset(task)
        observation, reward, terminated, truncated, info = env.step(action)
        assert observation
        assert reward == 0
        assert info["score"] == 0
        ended = terminated or truncated
    env.close()
    env.close()


@pytest.mark.parametrize("name", SETS)
def test_no_seed_is_in_two_splits(name):
    ranges = sorted(split.seeds for split in load_task_set(name).splits.values())
    assert all(a[1] <= b[0] for a, b in pairwise(ranges))


@pytest.mark.parametrize("name", SETS)
def test_the_measured_figures_are_there(name):
    arms = {figure.arm: figure for figure in load_task_set(name).measured}
    assert set(arms) == {"random", "oracle"}
    for figure in arms.values():
        assert figure.low <= figure.success <= figure.high
        assert name in figure.command
