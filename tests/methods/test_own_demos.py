"""Methods whose memory is their own attempts: which are kept, who recalls them, and which are dropped."""

from worlds import make_tasks

from agentevolve.memory import read_entries
from agentevolve.methods.self_demos import self_demos

TASKS = make_tasks(4, length=2, limit=3)


def entries(home, kind, as_of=None):
    return read_entries(home.run.folder / "memory", kind=kind, as_of=as_of)


# --- self-generated demos ---


def now(messages) -> str:
    """What was said last, without what was recalled before it."""
    return messages[-1].content.rpartition("Now your game:")[2]


def recalled(messages) -> str:
    return messages[1].content.rpartition("Now your game:")[0]


def imitating(messages, choices):
    """Finds the lamp on the left by itself, and the one on the right after it was shown a game that was won."""
    able = "game that was won" in recalled(messages) or "lamp is left" in now(messages)
    return ("right" if "lamp is right" in now(messages) else "left") if able else "wait"


def test_self_demos_recalls_in_each_batch_what_those_before_it_solved(house):
    home = house(imitating)
    self_demos(home.policy, TASKS, home.run, batch=2, nearest=4)
    first = {one.task.id: one for one in home.run.trajectories.values() if one.phase == "1/acquire/batch-0"}
    second = [one for one in home.run.trajectories.values() if one.phase == "1/acquire/batch-1"]
    assert [one.recalled for one in first.values()] == [(), ()]
    assert [one.solved for one in first.values()] == [True, False]
    assert [one.recalled for one in second] == [(f"demo/{first[TASKS[0].id].id}",)] * 2
    assert all(one.solved for one in second)  # the one on the right thanks to the demo
    assert {one.task for one in entries(home, "demo")} == {TASKS[n].id for n in (0, 2, 3)}


def test_self_demos_counts_what_a_demo_was_worth_to_other_tasks(house):
    home = house(imitating)
    self_demos(home.policy, TASKS, home.run, batch=2, nearest=4, enough=100)
    counts = {one.task: one.counts for one in entries(home, "demo")}
    assert counts == {TASKS[0].id: {"recalled": 2, "helped": 2}, TASKS[2].id: {}, TASKS[3].id: {}}
    home.run.round = 2
    self_demos(home.policy, TASKS[:1], home.run, batch=2, nearest=4, enough=100)
    (again,) = [one for one in home.run.trajectories.values() if one.phase.startswith("2/")]
    assert len(again.recalled) == 3
    counts = {one.id: one.counts for one in entries(home, "demo")}
    assert counts[f"demo/1/acquire/batch-0/{TASKS[0].id}/0@1"] == {"recalled": 2, "helped": 2}  # its own task proves nothing
    assert [counts[f"demo/1/acquire/batch-1/{TASKS[n].id}/0@2"] for n in (2, 3)] == [{"recalled": 1, "helped": 1}] * 2


def test_self_demos_drops_a_demo_that_does_worse_than_the_average_and_keeps_untried_ones(house):
    def misled(messages, choices):
        return "wait" if "Corridor one" in recalled(messages) else "right" if "lamp is right" in now(messages) else "left"

    home = house(misled)
    self_demos(home.policy, TASKS[:3], home.run, batch=3, nearest=1)
    first = {one.task for one in entries(home, "demo")}
    assert first == {task.id for task in TASKS[:3]}
    alike = make_tasks(13, length=2, limit=3)[10:]  # they look like the first three, and recall one of these each
    home.run.round = 2
    self_demos(home.policy, alike, home.run, batch=3, nearest=1, enough=2)
    assert {one.task for one in entries(home, "demo")} == first | {alike[1].id, alike[2].id}  # once is not enough to tell
    home.run.round = 3
    self_demos(home.policy, make_tasks(21, length=2, limit=3)[20:], home.run, nearest=1, enough=2)
    assert {one.task for one in entries(home, "demo")} == first - {TASKS[0].id} | {alike[1].id, alike[2].id}
    assert {one.task for one in entries(home, "demo", as_of=1)} == first
