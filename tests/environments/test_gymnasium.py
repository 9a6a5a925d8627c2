"""Gymnasium's door: the package's own environments, and one of a user's own, by their ids."""

import importlib
import random
import warnings
from functools import partial

import pytest

gymnasium = pytest.importorskip("gymnasium")

from agentevolve.environments import gymnasium as ours  # noqa: E402
from agentevolve.environments.support.splits import owner  # noqa: E402
from agentevolve.environments.support.tables import best_policy  # noqa: E402
from agentevolve.load import load_task_set, tasks_of  # noqa: E402
from agentevolve.protocols import AgentevolveError  # noqa: E402
from agentevolve.records import Task  # noqa: E402

LETTERS = "abcdefghijklmnopqrstuvwxyz ?"


class Riddle(gymnasium.Env):
    """A user's own text environment: say the animal's name backwards."""

    metadata = {"render_modes": []}  # noqa: RUF012
    animals = ("cat", "dog", "horse", "otter", "lynx", "heron", "newt", "mole", "bear", "wolf", "hare", "crane")

    def __init__(self, plain: bool = False) -> None:
        self.observation_space = gymnasium.spaces.Text(100, charset=LETTERS)
        self.action_space = gymnasium.spaces.Text(20, charset=LETTERS)
        self.plain = plain

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.animal = self.animals[self.np_random.integers(len(self.animals))]
        return f"say {self.animal} backwards", {}

    def step(self, action):
        right = action == self.animal[::-1]
        return "yes" if right else "no try again", float(right), right, False, {}


class Solved(Riddle):
    def oracle(self, seed):
        self.reset(seed=seed)
        return ["what ?", self.animal[::-1]]


gymnasium.register("Riddle-v0", entry_point=Riddle, max_episode_steps=5)
gymnasium.register("Solved-v0", entry_point=Solved, max_episode_steps=5)
gymnasium.register("Endless-v0", entry_point=Riddle)


def task(id: str, split="train", seed=0, **data) -> Task:
    return Task(id=f"{id}/{split}/{seed}", env="gymnasium", split=split, seed=seed, data={"id": id, **data})


def play(task: Task, actions=None) -> list:
    env = ours.make()
    actions = env.oracle(task) if actions is None else actions
    env.reset(task)
    steps = [env.step(action) for action in actions]
    env.close()
    return steps


def test_the_package_is_the_one_of_that_name():
    assert importlib.import_module("gymnasium") is gymnasium is not ours
    assert hasattr(gymnasium, "make_vec")
    assert ours.__name__ == "agentevolve.environments.gymnasium"


@pytest.mark.parametrize(
    "made",
    [
        partial(gymnasium.make, "FrozenLake-v1", is_slippery=False),
        partial(gymnasium.make, "Taxi-v4"),
        partial(gymnasium.make, "Solved-v0"),
        partial(gymnasium.make, "Riddle-v0"),
    ],
)
def test_the_package_checks_the_environments_that_are_used_here(made):
    from gymnasium.utils.env_checker import check_env

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(made().unwrapped, skip_render_check=True)


def test_what_is_seen_is_what_the_package_shows():
    one = task("Taxi-v4", seed=3)
    env, bare = ours.make(), gymnasium.make("Taxi-v4")
    first, info = env.reset(one)
    seen, _ = bare.reset(seed=env._seed)
    assert first == str(seen)
    assert info == {"score": 0.0, "raw": 0.0, "actions": ["0", "1", "2", "3", "4", "5"]}
    dice, total = random.Random(0), 0
    for _ in range(30):
        action = dice.randrange(6)
        step, (seen, reward, terminated, _, _) = env.step(str(action)), bare.step(action)
        total += reward
        assert (step.observation, step.terminated, step.info["raw"]) == (str(seen), terminated, total)


def test_a_lake_of_ones_own_for_each_seed_and_it_is_said_right():
    env, seen = ours.make(), set()
    for one in tasks_of(load_task_set("frozenlake"), "val", limit=20):
        first, info = env.reset(one)
        desc = [bytes(row).decode() for row in env._env.unwrapped.desc]
        seen.add(tuple(desc))
        rows = [line.split() for line in first.splitlines()[:4]]
        assert rows[0][0] == "@" and [row[1:] for row in rows] == [list(line[1:]) for line in desc]
        right, down = ({"F": "ice", "H": "hole"}[tile] for tile in (desc[0][1], desc[1][0]))
        assert first.splitlines()[4] == f"left: edge, down: {down}, right: {right}, up: edge"
        assert "@" in info["notes"]
    assert len(seen) > 15
    assert "reached the goal" in play(one)[-1].observation
    hole = task("FrozenLake-v1", same_start=True, kwargs={"desc": ["SH", "FG"], "is_slippery": False}, actions=list("ldru"),
                render="agentevolve.environments.support.tables:say_lake")  # fmt: skip
    lost = play(hole, ["r"])[-1]
    assert lost.terminated and lost.info["score"] == 0 and "fell into a hole" in lost.observation


def test_the_taxis_words_are_the_taxis_state():
    env = ours.make()
    names = {"north": 1, "south": 0, "east": 2, "west": 3}
    for one in tasks_of(load_task_set("taxi"), "val", limit=20):
        first, _ = env.reset(one)
        world = env._env.unwrapped
        drive = first.split("can drive ")[1].split(".")[0].split(", ")
        assert sorted(drive) == sorted(way for way, number in names.items() if world.P[world.s][number][0][1] != world.s)
        row, column, passenger, destination = world.decode(world.s)
        assert first.startswith(f"The taxi is at row {row + 1}, column {column + 1} ")
        places = [f"{name} (row {at[0] + 1}, column {at[1] + 1})" for name, at in
                  zip(("red", "green", "yellow", "blue"), world.locs, strict=True)]  # fmt: skip
        assert f"waits at {places[passenger]}" in first and f"destination is {places[destination]}" in first
    steps = play(one)
    assert any("sits in the taxi" in step.observation for step in steps)
    assert "is there" in steps[-1].observation


def test_the_oracles_plan_is_the_shortest():
    lake = task("FrozenLake-v1", same_start=True, kwargs={"map_name": "8x8", "is_slippery": False})
    assert len(play(lake)) == 14
    assert [step.info["score"] for step in play(lake)] == [0.0] * 13 + [1.0]
    cliff = play(task("CliffWalking-v1", same_start=True, limit=50, scale=[-50, -13]))
    assert len(cliff) == 13 and cliff[-1].info == {"score": 1.0, "raw": -13.0, "actions": ["0", "1", "2", "3"]}


def test_with_luck_the_oracle_does_what_is_best_on_average():
    lake = gymnasium.make("FrozenLake-v1").unwrapped
    policy = best_policy(lake.P)
    assert {state: policy[state] for state in (0, 8, 9, 14)} == {0: 0, 8: 3, 9: 1, 14: 1}  # the known optimum
    slippery = [task("FrozenLake-v1", seed=seed, same_start=True) for seed in range(60)]
    won = sum(play(one)[-1].info["score"] for one in slippery)
    assert 30 < won < 60


def test_scores_by_scale_come_at_the_end_and_cut_off_episodes_of_costs_count_nothing():
    cliff = task("CliffWalking-v1", same_start=True, limit=20, scale=[-50, -13])
    wandering = play(cliff, ["0", "2"] * 10)
    assert wandering[-1].truncated and wandering[-1].info == {"score": 0.0, "raw": -20.0, "actions": ["0", "1", "2", "3"]}
    assert play(cliff, [""] * 20)[-1].info["score"] == 0
    late = play(cliff, ["0", "2", "0", *["1"] * 11, "2"])
    assert late[-1].terminated and late[-1].reward == late[-1].info["score"] == pytest.approx(35 / 37)
    pole = task("CartPole-v1", same_start=True, limit=5, scale=[0, 5], render="test_gymnasium:rounded")
    assert play(pole, ["0", "1"] * 2 + ["0"])[-1].info["score"] == 1
    assert play(pole, ["0", "1"] * 2 + ["x"])[-1].info["score"] == 0.8


def rounded(observation, env):
    return f"{type(env).__name__} {observation.round(1).tolist()}"


def test_a_users_own_text_environment():
    one = task("Solved-v0", notes="A game of words.")
    env = ours.make()
    first, info = env.reset(one)
    assert first.startswith("say ") and info == {"score": 0.0, "raw": 0.0, "notes": "A game of words."}
    refused = env.step("SHOUT\n")
    assert refused.observation == "That is not an action." and not refused.terminated
    said = env.sample(random.Random(0))
    assert said in env._env.action_space and env.sample(random.Random(1)) != said
    steps = play(one)
    assert [step.observation for step in steps] == ["no try again", "yes"]
    assert steps[-1].info["score"] == 1 and steps[-1].terminated
    assert play(one, ["x"] * 5)[-1].truncated
    with pytest.raises(AgentevolveError, match="Riddle-v0 has no oracle"):
        env.oracle(task("Riddle-v0"))
    assert play(task("test_gymnasium:Solved-v0"))[-1].terminated


def test_no_start_is_in_two_splits_and_one_start_alone_is_refused():
    env, firsts = ours.make(), {}
    for split, first in (("train", 0), ("val", 10_000), ("test", 20_000)):
        firsts[split] = {env.reset(task("Riddle-v0", split, first + number))[0] for number in range(40)}
        assert all(owner(text) == split for text in firsts[split])
    assert len(set().union(*firsts.values())) == len(Riddle.animals) == sum(map(len, firsts.values()))
    with pytest.raises(AgentevolveError, match="look too much alike"):
        for split, seed in (("train", 0), ("val", 10_000), ("test", 20_000)):
            env.reset(task("CliffWalking-v1", split, seed, limit=50))
    env.reset(task("CliffWalking-v1", limit=50, same_start=True))
    for split, seed in (("train", 10_000), ("val", 9_999), ("test", 30_000), ("train", -1)):
        for alike in (True, False):
            with pytest.raises(AgentevolveError, match="seed"):
                env.reset(task("Taxi-v4", split, seed, same_start=alike))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({"id": ""}, r"settings\.id: missing"),
        ({"id": "NoSuchThing-v0"}, r"settings\.id: 'NoSuchThing-v0'"),
        ({"id": "no_such_module:Maze-v0"}, r"settings\.id.*no_such_module"),
        ({"id": "FrozenLake-v1", "kwargs": {"depth": 3}}, r"settings\.kwargs.*depth"),
        ({"id": "FrozenLake-v1", "kwargs": 3}, r"settings\.kwargs: 3 is not a dict"),
        ({"id": "FrozenLake-v1", "actions": ["left"]}, r"settings\.actions: 1 names for 4 actions"),
        ({"id": "FrozenLake-v1", "actions": ["a", "a", "b", "c"]}, r"settings\.actions.*different"),
        ({"id": "FrozenLake-v1", "render": "nonsense"}, r"settings\.render: 'nonsense' is not of the form"),
        ({"id": "FrozenLake-v1", "render": "json:nothing"}, r"settings\.render: 'json:nothing'"),
        ({"id": "FrozenLake-v1", "by_seed": {"desc": 3}}, r"settings\.by_seed\.desc"),
        ({"id": "FrozenLake-v1", "limit": 0}, r"settings\.limit"),
        ({"id": "FrozenLake-v1", "scale": [1, 1]}, r"settings\.scale"),
        ({"id": "FrozenLake-v1", "size": 4}, r"unknown key 'size'; known: id, kwargs"),
        ({"id": "CartPole-v1"}, r"settings\.render: CartPole-v1 shows Box"),
        ({"id": "Pendulum-v1"}, r"settings\.id: its actions are Box"),
        ({"id": "Endless-v0"}, r"settings\.limit: Endless-v0 has no max_episode_steps"),
    ],
)  # fmt: skip
def test_unusable_settings_are_one_line(data, match):
    one = task("x").model_copy(update={"data": data})
    with pytest.raises(AgentevolveError, match=match) as caught:
        ours.make().reset(one)
    assert "\n" not in str(caught.value)


def test_a_slow_limit_and_a_step_before_reset():
    assert play(task("Taxi-v4", limit=2), ["", ""])[-1].truncated
    with pytest.raises(RuntimeError, match="reset first"):
        ours.make().step("0")
