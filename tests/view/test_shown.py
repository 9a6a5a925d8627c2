"""Two attempts beside each other: where they differ first, and in what."""

import pytest
from lived import lived
from starlette.testclient import TestClient

from agentevolve.records import PolicyStamp, Task, Trajectory, Turn
from agentevolve.view import templates
from agentevolve.view.security import hosts
from agentevolve.view.server import guarded
from agentevolve.view.shown import side_by_side


def attempt(*turns: tuple[str, str], prompt: str = "Go.") -> Trajectory:
    task = Task(id="t", env="e", split="train")
    steps = tuple(Turn(action=action, observation=seen) for action, seen in turns)
    return Trajectory(id="x", task=task, policy=PolicyStamp(model="m"), phase="run", prompt=prompt, turns=steps, end="terminated")


SAME = ("go", "you went")


@pytest.mark.parametrize(
    ("turns", "apart", "other", "said"),
    [
        ((SAME, ("take", "taken")), None, "", "They are the same, turn by turn."),
        ((SAME, ("drop", "taken")), 2, "the action", "where they differ first, in the action."),
        ((SAME, ("take", "it is gone")), 2, "what came back", "where they differ first, in what came back to the same action."),
        ((SAME,), 2, "the end", "where they differ first, since one has ended."),
        ((("stay", "you stayed"),), 1, "the action", "on, in the action."),
    ],
)
def test_it_is_said_in_what_two_attempts_differ_first(turns, apart, other, said):
    both = side_by_side(attempt(SAME, ("take", "taken")), attempt(*turns), None)
    assert (both["apart"], both["differs"], both["other"]) == (apart, apart, other)
    row = {"id": "x", "seed": 0, "task": "t", "outcome": "lost", "reward": 0, "turns": 1, "tokens": 0, "recalled": 0, "arm": "a"}
    around = {"nonce": "", "address": "", "twin": "", "live": "", "here": "attempts", "alone": False}
    page = templates.page("compare", {"name": "r", "rows": [row | {"round": None}] * 2, **both}, **around)
    assert said in page
    assert (f"first difference: {other}" in page) == bool(other)


def test_what_was_shown_at_the_start_comes_first():
    both = side_by_side(attempt(SAME), attempt(("go", "you fell"), prompt="Walk."), None)
    assert (both["differs"], both["apart"], both["other"]) == (0, 1, "what came back")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("attempts?outcome=lost", "1 attempt that was lost; the first made first."),
        ("attempts?outcome=solved&split=train", "4 attempts of the train split that were solved; the first made first."),
        ("memory?kind=insight&state=there", "1 entry of the kind insight that is there; the oldest first."),
        ("memory?kind=nothing", "0 entries of the kind nothing; the oldest first."),
    ],
)
def test_a_filter_is_said_in_the_right_number(told, address, said):
    page, sign, query = address.partition("?")
    assert told.get(f"/runs/mine/{page}.json{sign}{query}").json()["said"] == said


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    place = lived(tmp_path_factory.mktemp("runs") / "mine").parent
    return TestClient(guarded(place, hosts("127.0.0.1", 8265, ""), ""), base_url="http://127.0.0.1:8265")
