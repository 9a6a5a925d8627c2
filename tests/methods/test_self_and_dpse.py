"""Methods that learn from their own feedback: what becomes a meta-skill, what is refined, what satisfies."""

from pathlib import Path

import pytest
from worlds import lamp, make_tasks, walker

from agentevolve.act.prompting import render, transcript
from agentevolve.local.adapter import LoraSettings, read_adapter, read_rows
from agentevolve.methods.dpse import dpse
from agentevolve.methods.self import self as self_evolution
from agentevolve.records import PolicyStamp, Task, Trajectory, Turn
from agentevolve.refine import topics, underserved
from agentevolve.refine.censor import signals

QUICK = LoraSettings(rank=2, alpha=4, epochs=1)
DPO = LoraSettings(rank=2, alpha=4, epochs=1, objective="dpo")
TASKS = make_tasks(4, length=2, limit=4)
FEEDBACK = "Do not wait: walk."


def said(messages) -> list[str]:
    return [message.content for message in messages if message.role == "assistant"]


def of(side) -> list[str]:
    return [task.id for task in TASKS if lamp(task) == side]


# ---------------------------------------------------------------- SELF


@pytest.fixture
def refining(house):
    """A model that solves what lies left, and when it is told its feedback what lies right as well; its judge likes left."""

    def script(messages, choices):
        asked = messages[-1].content
        if "How well was the task done?" in asked:
            return "5" if "lamp is left" in asked else "1"
        if "What was wrong with it" in asked:
            return FEEDBACK
        told = any(FEEDBACK in message.content for message in messages)
        if told and len(home.run.trajectories) == 2 * len(TASKS) - 1:
            home.answers_with(home.run.folder / "adapters" / "meta-1")  # the last attempt before the first training
        return walker(messages, choices) if told or "lamp is left" in asked else "wait"

    home = house(script)
    return home


def test_self_learns_first_to_criticise_and_to_refine_where_that_led_to_success(refining):
    self_evolution(refining.policy, TASKS, refining.run, lora=QUICK)
    rows = read_rows(refining.run.folder / "adapters" / "meta-1")
    assert len(rows) == 2 * len(of("right"))
    for id, feedback, refined in zip(of("right"), rows[::2], rows[1::2], strict=True):
        first = refining.run.trajectories[f"1/acquire/meta/{id}/0"]
        assert feedback.prompt[0].content == render("critique", transcript=transcript(first))
        assert (said(feedback.completion), feedback.sources) == ([FEEDBACK], (first.id, f"1/acquire/meta-refined/{id}/0"))
        assert feedback.prompt in [tuple(messages) for messages, _ in refining.model.calls]
        assert FEEDBACK in refined.prompt[1].content and said(refined.completion) == ["right", "right"]


def test_self_then_learns_from_its_praised_refinements_without_the_feedback_and_keeps_the_skill(refining):
    policy = self_evolution(refining.policy, TASKS, refining.run, replay=0.5, lora=QUICK)
    meta = read_rows(refining.run.folder / "adapters" / "meta-1")
    rows = refining.rows(policy)
    fresh = [row for row in rows if row not in meta]
    assert [row.id for row in fresh] == [f"1/acquire/self-refined/{id}/0" for id in of("left")]
    assert len(rows) == 2 * len(fresh)
    assert not any(FEEDBACK in message.content for row in fresh for message in (*row.prompt, *row.completion))
    info = read_adapter(Path(policy.adapter))
    assert info.start == read_adapter(refining.run.folder / "adapters" / "meta-1").identity
    hinted = {one.phase for one in refining.run.trajectories.values() if FEEDBACK in one.hint}
    assert hinted == {"1/acquire/meta-refined", "1/acquire/self-refined"}


def test_self_learns_the_meta_skill_once(refining):
    first = self_evolution(refining.policy, TASKS, refining.run, lora=QUICK)
    refining.run.round = 2
    refining.answers_with(Path(first.adapter))
    second = self_evolution(first, TASKS, refining.run, replay=0.0, lora=QUICK)
    assert sorted(path.name for path in (refining.run.folder / "adapters").iterdir()) == ["meta-1", "round-1", "round-2"]
    assert {one.phase for one in refining.run.acquired(2)} == {"2/acquire/self", "2/acquire/self-refined"}
    assert read_adapter(Path(second.adapter)).start == read_adapter(Path(first.adapter)).identity
    calls = len(refining.model.calls)
    assert self_evolution(first, TASKS, refining.run, replay=0.0, lora=QUICK) == second and len(refining.model.calls) == calls


def test_self_goes_on_where_its_feedback_helps_nobody(house):
    home = house(lambda messages, choices: "" if "What was wrong" in messages[-1].content else "wait")
    assert self_evolution(home.policy, TASKS, home.run, lora=QUICK) == home.policy


# ---------------------------------------------------------------- DPSE


def attempt(id, *turns, env="worlds:Corridor", end="terminated", split="train"):
    task = Task(id=id, env=env, split=split)
    said = tuple(Turn(action=action, observation=seen) for action, seen in turns)
    return Trajectory(id=id, task=task, policy=PolicyStamp(model="m"), phase="p", prompt=f"about {id}", turns=said, end=end)


def test_the_censor_s_signals_by_hand():
    walked = attempt("a", ("left", "at 1"), ("left", "at 2"))
    waited = attempt("b", ("wait", "at 0"), ("wait", "at 0"), ("left", "at 1"), ("wait", "at 1"), end="truncated")
    assert signals(walked, 0.4) == (0.4, 1.0, 1.0) and signals(walked, 0.4).satisfaction == pytest.approx(0.8)
    assert signals(waited, 0.6) == (0.6, 0.75, 0.0) and signals(waited, 0.6).satisfaction == pytest.approx(0.45)
    assert signals(attempt("c"), 0.0).satisfaction == pytest.approx(1 / 3)


def test_topics_that_satisfy_less_than_the_mean_are_served_badly():
    attempts = [attempt(id) for id in "abcd"]
    topic = {"a": "finding", "b": "finding", "c": "moving", "d": "other"}
    served = {"a": 0.0, "b": 0.4, "c": 0.9, "d": 0.3}  # by topic 0.2, 0.9, 0.3; their mean 0.47
    assert [task.id for task in underserved(attempts, served, topic)] == ["a", "b", "d"]
    assert [task.id for task in underserved(attempts, served, dict.fromkeys("abcd", "one"))] == list("abcd")
    assert underserved([], {}, {}) == []


def test_a_topic_that_is_not_on_the_list_is_other(house):
    home = house(lambda messages, choices: "finding" if "about a" in messages[-1].content else "Finding things!")
    attempts = [attempt("a"), attempt("b")]
    assert topics(attempts, home.policy, home.run, ("finding", "moving")) == {"a": "finding", "b": "other"}
    assert [choices for _, choices in home.model.calls] == [("finding", "moving")] * 2
    topics(attempts, home.policy, home.run, ("finding", "moving"))
    assert len(home.model.calls) == 2


def test_dpse_expands_what_is_served_badly_grounds_on_what_satisfies_and_prefers_by_frequency(house):
    tasks = make_tasks(5, length=2, limit=4)  # three lamps on the left, two on the right

    def script(messages, choices):
        asked = messages[-1].content
        if "What is it mostly about" in asked:
            return "finding" if "lamp is left" in asked else "moving"
        if "How well was the task done?" in asked:
            return "1" if "> wait" in asked else "5"
        waits = len(home.run.trajectories) % 2 and ("lamp is right" in asked or len(messages) == 2)  # every other attempt
        return "wait" if waits else walker(messages, choices)

    home = house(script)
    policy = dpse(home.policy, tasks, home.run, samples=3, expand=2, known=("finding", "moving"), ground=QUICK, prefer=DPO)
    run = home.run
    expanded = {one.task.id for one in run.trajectories.values() if one.phase == "1/acquire/expanded"}
    assert expanded == {task.id for task in tasks if lamp(task) == "right"}

    def satisfied(one):
        return signals(one, 0.2 if any(turn.action == "wait" for turn in one.turns) else 1.0).satisfaction

    grounded = home.run.folder / "adapters" / "grounded-1"
    for row in read_rows(grounded):
        (one,) = (run.trajectories[source] for source in row.sources)
        rivals = [other for other in run.acquired() if other.task == one.task]
        assert satisfied(one) == max(map(satisfied, rivals)) >= 0.7
    weights = set()
    for row in home.rows(policy):
        better, worse = (run.trajectories[source] for source in row.sources)
        assert better.task == worse.task and satisfied(better) > satisfied(worse)
        weights.add((lamp(better.task), row.weight))
    assert weights == {("left", 1.2), ("right", 0.8)}  # met 9 and 6 times; the mean of the topics is 7.5
    info = read_adapter(Path(policy.adapter))
    assert (info.start, info.settings.objective) == (read_adapter(grounded).identity, "dpo")
    calls = len(home.model.calls)
    again = dpse(home.policy, tasks, run, samples=3, expand=2, known=("finding", "moving"), ground=QUICK, prefer=DPO)
    assert again == policy and len(home.model.calls) == calls


def test_dpse_needs_no_reward(house):
    def script(messages, choices):
        asked = messages[-1].content
        if "What is it mostly about" in asked:
            return "nonsense"
        if "How well was the task done?" in asked:
            return "5"
        return ("wait", "right", "left")[len(messages) % 3] if "lamp is left" in asked else "left"

    home = house(script)
    policy = dpse(home.policy, make_tasks(2, length=3, limit=3), home.run, at_least=0.5, ground=QUICK, prefer=DPO)
    assert all(one.reward == 0 for one in home.run.acquired())
    assert policy.stamp().adapter in ("grounded-1", "round-1")
