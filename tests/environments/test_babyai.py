"""BabyAI: what is said is what Minigrid's picture shows, quietly, and every level that is offered can be solved."""

import threading

import pytest

pytest.importorskip("minigrid")

from agentevolve.environments.babyai import ACTIONS, LEVELS, BabyAI, describe
from agentevolve.environments.support.minigrid import package
from agentevolve.environments.support.splits import owner
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Task


def task(level="GoToLocal", split="train", seed=0, limit=64) -> Task:
    data = {"level": level, "limit": limit}
    return Task(id=f"{level}/{split}/{seed}", env="babyai", split=split, seed=seed, data=data)


def view(**things):
    """A picture with empty floor but for things: (across, down) of the 7×7 cells."""
    import numpy

    image = numpy.full((7, 7, 3), 0, dtype="uint8")
    image[:, :, 0] = 1
    for place, thing in things.items():
        image[int(place[1]), int(place[2])] = thing
    return image


def test_the_words_are_balrogs():
    red_key, open_door, locked, ball = (5, 0, 0), (4, 2, 0), (4, 5, 2), (6, 3, 0)
    wall = (2, 5, 0)
    assert describe(view(_45=red_key)) == "a red key 1 step right and 1 step forward"
    assert describe(view(_31=wall)) == "a wall 5 steps forward"
    assert describe(view(_36=ball)) == "You carry a purple ball"
    seen = describe(view(_06=wall, _56=wall, _20=open_door, _16=locked, _35=ball, _36=red_key))
    assert seen.splitlines() == [
        "a purple ball 1 step forward",
        "a locked grey door 2 steps left",
        "an open blue door 1 step left and 6 steps forward",
        "a wall 3 steps left",
        "a wall 2 steps right",
        "You carry a red key",
    ]
    assert describe(view()) == "nothing in sight"
    assert describe(view(_34=(0, 0, 0), _33=wall)) == "nothing in sight"  # a wall behind what is not seen


def test_the_words_follow_the_world():
    env = BabyAI()
    first, info = env.reset(task("PickupLoc"))
    assert info["notes"].startswith("Your goal is to pick up ")
    assert info["actions"] == sorted(ACTIONS) and info["score"] == info["raw"] == 0
    for action in env.oracle(task("PickupLoc")):
        step = env.step(action)
    assert step.observation.splitlines()[-1].startswith("You carry a")
    assert step.terminated and step.reward == step.info["score"] == 1 and 0 < step.info["raw"] < 1
    assert env.reset(task("PickupLoc"))[0] == first
    assert env.step("TURN LEFT").observation.startswith("That is not an action. The actions are: turn left, ")
    for _ in range(4):
        step = env.step(" turn left\n")
    assert step.observation == first


def test_the_levels_are_the_packages_but_for_debugging_and_what_its_bot_cannot():
    import gymnasium

    package()
    known = {id.removeprefix("BabyAI-").rpartition("-")[0] for id in gymnasium.registry if id.startswith("BabyAI-")}
    hard = {"KeyInBox", "PutNextS5N2Carrying", "PutNextS6N3Carrying", "PutNextS7N4Carrying"}
    assert set(LEVELS) == {name for name in known if not name.endswith("Debug")} - hard
    assert len(LEVELS) == len(set(LEVELS))


def solved(one: Task) -> bool:
    env = BabyAI()
    actions = env.oracle(one)
    env.reset(one)
    steps = [env.step(action) for action in actions]
    return steps[-1].terminated and steps[-1].info["score"] == 1 and not any(step.terminated for step in steps[:-1])


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_the_bot_solves_every_level(level):
    assert solved(task(level, limit=10_000))


def test_a_bot_that_knows_no_way_says_so():
    with pytest.raises(AgentevolveError, match="finds no way in this world of BabyAI-GoToImpUnlock-v0"):
        BabyAI().oracle(task("GoToImpUnlock", seed=6, limit=10_000))  # the bare bot thinks without end


def test_nothing_is_printed_and_stdout_is_left_alone(capfd):
    env = BabyAI()
    for seed in range(30):  # a draw of PutNextLocalS5N3 is thrown away now and then: the bare package says so
        env.reset(task("PutNextLocalS5N3", seed=seed))
        env.reset(task("UnblockPickup", seed=seed))
    assert capfd.readouterr() == ("", "")
    print("heard")
    assert capfd.readouterr().out == "heard\n"


def test_worlds_side_by_side_in_threads_do_not_disturb_each_other():
    def played(one: Task) -> list:
        env = BabyAI()
        actions = env.oracle(one)
        return [env.reset(one), *(env.step(action) for action in actions)]

    tasks = [task(level, seed=seed) for level in ("GoToLocal", "PutNextLocal") for seed in range(4)]
    alone, together = [played(one) for one in tasks], {}
    threads = [threading.Thread(target=lambda one=one: together.update({one.id: played(one)})) for one in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[one.id] for one in tasks] == alone


def test_no_instruction_and_first_sight_is_in_two_splits():
    env, seen = BabyAI(), {}
    for split, first in (("train", 0), ("val", 10_000), ("test", 20_000)):
        for seed in range(first, first + 100):  # a tiny level: by chance alone a great many would be in two
            observation, info = env.reset(task("GoToObjS4", split, seed))
            seen.setdefault(split, set()).add(f"{info['notes']}\n{observation}")
        assert {owner(text) for text in seen[split]} == {split}
    assert min(map(len, seen.values())) > 10


def test_unusable_settings_and_seeds_are_one_line():
    for data, match in (
        ({"level": "GoToMars"}, r"settings\.level: unknown level 'GoToMars'; known: GoToRedBallGrey, "),
        ({"level": "GoToLocal", "limit": 0}, r"settings\.limit"),
        ({"level": "GoToLocal", "limit": True}, r"settings\.limit"),
        ({"levels": "GoToLocal"}, "unknown key 'levels'; known: level, limit"),
    ):
        with pytest.raises(AgentevolveError, match=match):
            BabyAI().reset(task().model_copy(update={"data": data}))
    for split, seed in (("train", 10_000), ("val", 0), ("test", 30_000), ("train", -1)):
        with pytest.raises(AgentevolveError, match="seed"):
            BabyAI().reset(task("GoToLocal", split, seed))
    with pytest.raises(RuntimeError, match="reset first"):
        BabyAI().step("turn left")
