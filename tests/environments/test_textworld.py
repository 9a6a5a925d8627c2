"""TextWorld: games made once, aside and whole; only what is admissible reaches them."""

import argparse
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("textworld")

from agentevolve.environments.support.textworld.inform import CHALLENGES, made
from agentevolve.environments.textworld import PARAMS, TextWorld, check
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Task
from agentevolve.wheels import cache

COOKING = {"recipe": 1, "take": 1, "open": 1, "cook": 1}


def task(game="coin", split="train", seed=0, limit=30, **params) -> Task:
    data = {"game": game, "params": params or {"coin": {"level": 3}, "treasure": {"level": 5}, "cooking": COOKING}[game]}
    return Task(id=f"{game}/{split}/{seed}", env="textworld", split=split, seed=seed, data=data | {"limit": limit})


def test_the_same_game_is_made_by_other_processes_and_nothing_is_left_behind(tmp_path):
    def made_there(room: str, hash_seed: str) -> tuple[list[str], dict]:
        settings = {"AGENTEVOLVE_CACHE": str(tmp_path / room), "HOME": str(tmp_path / "home"), "PYTHONHASHSEED": hash_seed}
        code = (
            "import random; from test_textworld import *\n"
            "random.seed(5); before = random.getstate()\n"
            "env = TextWorld(); first = env.reset(task('treasure')); assert random.getstate() == before\n"
            "print(json.dumps([first, env.oracle(task('treasure'))]))"
        )
        here = Path(__file__).parent
        ran = subprocess.run([sys.executable, "-c", code], cwd=here, env=os.environ | settings, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr == "" and len(ran.stdout.splitlines()) == 1
        games = list((tmp_path / room / "games").iterdir())
        assert [sorted(path.name for path in folder.iterdir()) for folder in games] == [["game.json", "game.z8"]]
        return [folder.name for folder in games], json.loads(ran.stdout)

    (tmp_path / "home").mkdir()
    assert made_there("one", "1") == made_there("two", "2")
    assert list((tmp_path / "home").iterdir()) == []  # the compiler wrote its Inform folder elsewhere


def test_a_game_in_the_cache_is_not_made_again_and_other_settings_are_another_game():
    place = made("coin", {"level": 3}, 0, "train")
    before = (place / "game.z8").stat()
    assert made("coin", {"level": 3}, 0, "train") == place and (place / "game.z8").stat() == before
    assert place.parent == cache("games") and place.name.startswith("textworld-")
    assert len({place, made("coin", {"level": 3}, 1, "train"), made("coin", {"level": 2}, 0, "train")}) == 3


def test_threads_that_want_the_same_game_get_it_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTEVOLVE_CACHE", str(tmp_path))
    ends = []

    def play() -> None:
        env, one = TextWorld(), task("coin", level=2)
        actions = env.oracle(one)
        env.reset(one)
        ends.append([env.step(action) for action in actions])
        env.close()

    threads = [threading.Thread(target=play) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 2 and ends[0] == ends[1] and ends[0][-1].terminated
    assert len(list((tmp_path / "games").iterdir())) == 1


def test_a_game_that_cannot_be_made_says_why_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTEVOLVE_CACHE", str(tmp_path))
    with pytest.raises(AgentevolveError, match=r"cannot make the game.*level") as caught:
        made("coin", {"level": 999}, 0, "train")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "games").iterdir()) == []


def test_a_meal_from_the_book_to_the_plate():
    env, one = TextWorld(), task("cooking")
    plan = env.oracle(one)
    first, info = env.reset(one)
    assert first.startswith("-= Kitchen =-") and "cookbook" in info["notes"]
    assert info["raw"] == info["score"] == 0 and info["actions"] == sorted(set(info["actions"]))
    scores = []
    for action in plan:
        assert action in info["actions"]
        step = env.step(action)
        info = step.info
        scores.append(info["score"])
    assert step.terminated and scores[-1] == 1 and scores == sorted(scores) and len(set(scores)) > 2
    assert info["raw"] == round(1 / min(score for score in scores if score))  # points of one each
    assert "RESTART" not in step.observation and "TextWorld" not in first


def test_foods_and_preparations_are_held_out():
    from textworld.challenges.tw_cooking.cooking import FOOD_PREPARATIONS_SPLITS, FOODS_SPLITS

    for split, theirs in (("train", "train"), ("val", "valid"), ("test", "test")):
        folder = made("cooking", {"recipe": 3, "take": 3, "go": 1, "open": 0, "cook": 1, "cut": 1, "drop": 0}, 7, split)
        game = json.loads((folder / "game.json").read_text())["metadata"]
        assert game["settings"]["split"] == theirs
        for food, cooking, cutting in game["ingredients"]:
            new = food in FOODS_SPLITS[theirs] and split != "train"
            assert new or [cooking, cutting] in [list(way) for way in FOOD_PREPARATIONS_SPLITS[theirs][food]]


def test_the_objective_does_not_tell_the_way():
    env, one = TextWorld(), task("coin", level=105)
    plan = env.oracle(one)
    _, info = env.reset(one)
    assert len(plan) == 5 and plan[-1] == "take coin"
    assert "coin" in info["notes"]
    ways = [way for way in ("north", "south", "east", "west") if way in info["notes"]]
    assert ways == []


@pytest.mark.parametrize(
    "word", ["quit", "restart", "save", "restore", "undo", "print_state", "look. quit", "tw-trace-actions", "y"]
)
def test_the_interpreters_own_commands_do_not_reach_it(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env, one = TextWorld(), task()
    first, info = env.reset(one)
    step = env.step(word)
    assert step.observation == "You cannot do that here." and not step.terminated
    assert step.info == {key: value for key, value in info.items() if key != "notes"}
    assert first.splitlines()[0] in env.step(" LOOK\n").observation
    assert list(tmp_path.iterdir()) == []
    env.close()


def test_taking_the_wrong_thing_loses():
    env = TextWorld()
    for seed in range(2, 10):
        one = task("treasure", seed=seed, level=2)
        right = env.oracle(one)[-1]
        _, info = env.reset(one)
        wrong = [action for action in info["actions"] if action.startswith("take ") and action != right]
        if wrong:
            step = env.step(wrong[0])
            assert step.terminated and step.info["score"] == 0
            return
    raise AssertionError("no game starts beside the wrong thing")


def test_games_side_by_side_do_not_disturb_each_other():
    tasks = [task(seed=seed) for seed in (0, 1)] * 8
    envs = [TextWorld() for _ in tasks]
    plans = [env.oracle(one) for env, one in zip(envs, tasks, strict=True)]
    firsts = [env.reset(one)[0] for env, one in zip(envs, tasks, strict=True)]
    assert len(set(firsts)) == 2
    for turn in range(3):
        steps = [env.step(plan[turn]) for env, plan in zip(envs, plans, strict=True)]
    assert all(step.terminated and step.info["score"] == 1 for step in steps)
    for env in envs:
        env.close()
        env.close()


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({"game": "chess"}, r"settings\.game: unknown game 'chess'; known: coin, treasure, cooking"),
        ({"game": "coin", "params": {"levels": 1}}, r"settings\.params: coin has no parameter 'levels'; known: level"),
        ({"game": "coin", "params": {"level": 301}}, r"settings\.params\.level: 301 is not one of 1, …, 300"),
        ({"game": "coin", "params": {"level": 160}}, r"settings\.params\.level: 160 has 120 rooms; the most is 100"),
        ({"game": "cooking", "params": {"go": 5}}, r"settings\.params\.go: 5 is not one of 1, 6, 9, 12"),
        ({"game": "cooking", "params": {"take": 2}}, r"settings\.params\.take: 2 is more than"),
        ({"game": "cooking", "params": {"open": True}}, r"settings\.params\.open"),
        ({"game": "cooking", "params": [1]}, r"settings\.params"),
        ({"game": "coin", "limit": 0}, r"settings\.limit"),
        ({"games": "coin"}, "unknown key 'games'; known: game, params, limit"),
    ],
)
def test_unusable_settings_are_one_line(data, match):
    with pytest.raises(AgentevolveError, match=match):
        check(data)
    with pytest.raises(AgentevolveError, match=match):
        TextWorld().reset(task().model_copy(update={"data": data}))


def test_the_ranges_are_the_generators():
    from textworld import challenges

    for game, params in PARAMS.items():
        parser = challenges.CHALLENGES[CHALLENGES[game]][2](argparse.ArgumentParser())
        theirs = {action.dest for action in parser._actions} - {"help", "split", "recipe_seed"}
        assert theirs == set(params)


def test_seeds_of_another_split_are_refused():
    for split, seed in (("train", 10_000), ("val", 0), ("test", 30_000), ("train", -1)):
        with pytest.raises(AgentevolveError, match="seed"):
            TextWorld().reset(task("coin", split, seed))
    with pytest.raises(RuntimeError, match="reset first"):
        TextWorld().step("look")
