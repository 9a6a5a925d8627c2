"""Methods whose memory is their own attempts: which are kept, who recalls them, and which are dropped."""

from worlds import lamp, make_tasks

from agentevolve.act.rollout import rollout
from agentevolve.memory import read_entries
from agentevolve.methods.memory_of_thought import memory_of_thought
from agentevolve.methods.self_demos import self_demos

TASKS = make_tasks(4, length=2, limit=3)


def entries(home, kind, as_of=None):
    return read_entries(home.run.folder / "memory", kind=kind, as_of=as_of)


# --- self-generated demos ---


def now(messages) -> str:
    """What was said last, without what was recalled before it."""
    return messages[-1].content.rpartition("A new game:")[2]


def recalled(messages) -> str:
    """All that stands before the last task that begins."""
    return "\n".join(message.content for message in messages).rpartition("A new game:")[0]


def imitating(messages, choices):
    """Finds the lamp on the left by itself, and the one on the right after it was shown a game that was won."""
    able = "was won" in recalled(messages) or "lamp is left" in now(messages)
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
    found, calls = entries(home, "demo"), len(home.model.calls)
    self_demos(home.policy, make_tasks(21, length=2, limit=3)[20:], home.run, nearest=1, enough=2)  # as after a kill
    assert (entries(home, "demo"), len(home.model.calls)) == (found, calls)


# --- Memory of Thought ---


class Thinking:
    """Waits at lamps on the right but for every fourth attempt; walks to those on the left. Undecided in corridor three."""

    def __init__(self):
        self.begun = 0

    def __call__(self, messages, choices):
        asked = now(messages) or messages[-1].content
        self.begun += len(messages) == 2
        if "Corridor three" in asked:
            return ("left", "wait")[self.begun % 2]
        return "wait" if "lamp is right" in asked and self.begun % 4 else "right" if "lamp is right" in asked else "left"


def test_memory_of_thought_keeps_the_majority_right_or_wrong_and_nothing_where_there_is_none(house):
    home = house(Thinking())
    policy = memory_of_thought(home.policy, TASKS, home.run, samples=4, entropy=0.7)  # two against two: 0.69 nats
    lived = list(home.run.trajectories.values())
    won = {task.id: sum(one.solved for one in lived if one.task.id == task.id) for task in TASKS}
    assert won == {TASKS[0].id: 4, TASKS[1].id: 1, TASKS[2].id: 2, TASKS[3].id: 1}
    kept = {one.task: one for one in entries(home, "case")}
    assert set(kept) == {TASKS[n].id for n in (0, 1, 3)}  # two against two is no majority
    assert all("> wait" in kept[TASKS[n].id].text for n in (1, 3))  # the wrong majority, not the solved minority
    assert {one.policy.temperature for one in lived} == {1.2} and policy.temperature == home.policy.temperature
    strict = house(Thinking())
    memory_of_thought(strict.policy, TASKS, strict.run, samples=4)  # three of four agree: 0.56 nats
    assert {one.task for one in entries(strict, "case")} == {TASKS[0].id}


def test_memory_of_thought_says_nothing_of_the_reward(house):
    home = house(Thinking())
    policy = memory_of_thought(home.policy, TASKS, home.run, samples=4, entropy=0.6)
    assert {one.reward for one in entries(home, "case")} == {0.0}
    roomy = policy.using(recall=policy.recall.model_copy(update={"tokens": 5000}))
    (seen,) = rollout(roomy, make_tasks(1, split="val", length=2), home.run, phase="look")
    shown = "\n".join([*(message.content for message in seen.demos), seen.context])
    assert shown.count("nobody has checked whether it was won.") == 3
    assert "game was won" not in shown and "game was lost" not in shown


def test_memory_of_thought_shows_one_of_each_cluster(house):
    home = house(lambda messages, choices: "wait")
    tasks = [
        task for task in make_tasks(30, length=1, limit=2) if task.seed % 10 in (0, 1)
    ]  # two kinds of corridor, three of each
    policy = memory_of_thought(home.policy, tasks, home.run, samples=1, clusters=2)
    shown = entries(home, "case")
    assert sorted(lamp(task) for task in tasks if task.id in {one.task for one in shown}) == ["left", "right"]
    (seen,) = rollout(policy, make_tasks(1, split="val", length=1), home.run, phase="look")
    assert set(seen.recalled) == {one.id for one in shown}
    home.run.round = 2
    memory_of_thought(policy, make_tasks(4, length=1, limit=2)[2:], home.run, samples=1, clusters=3)
    assert len(entries(home, "case")) == 3 and entries(home, "case", as_of=1) == shown
    found = entries(home, "case")
    memory_of_thought(policy, make_tasks(4, length=1, limit=2)[2:], home.run, samples=1, clusters=3)
    assert entries(home, "case") == found
