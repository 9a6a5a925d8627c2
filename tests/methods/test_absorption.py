"""The default method over rounds: memory while acting, distillation every m rounds, and what the weights absorb retires."""

import pytest
from worlds import lamp, make_tasks, use_model, walker

from agentevolve.act.rollout import rollout
from agentevolve.local.adapter import LoraSettings
from agentevolve.memory import read_entries, read_ledger
from agentevolve.methods.agentevolve import agentevolve
from agentevolve.update import absorbed

QUICK = LoraSettings(rank=2, alpha=4, epochs=1)
TASKS = make_tasks(4, length=2, limit=3)
SETTINGS = {"samples": 2, "epsilon": (0.0,), "reflections": 4, "lora": QUICK}


def solving(*known):
    """Solves the tasks of these lamps by itself, and every task when it recalls a won game."""

    def script(messages, choices):
        asked = messages[-1].content
        if "This game was lost" in asked:
            return "Next time walk."
        told = any("was won" in message.content for message in messages)
        return walker(messages, choices) if told or any(f"lamp is {side}" in asked for side in known) else "wait"

    return script


def lived(home, number, **settings):
    """One more round, from the candidate of the round before."""
    home.run.round = number
    home.answers_with(home.run.folder / "adapters" / f"round-{number - 1}")
    return lambda policy: agentevolve(policy, TASKS, home.run, **SETTINGS | settings).using(round=number)


def present(home, as_of, kind="demo"):
    return {entry.task for entry in read_entries(home.run.folder / "memory", as_of=as_of, kind=kind)}


def of(side):
    return {task.id for task in TASKS if lamp(task) == side}


def test_entries_of_tasks_solved_without_memory_retire_and_the_others_stay(house):
    home = house(solving("left"))
    first = agentevolve(home.policy, TASKS, home.run, **SETTINGS)
    assert present(home, 1) == of("left") and present(home, 1, "reflection") == of("right")
    second = lived(home, 2)(first)
    assert present(home, 2) == of("right")  # these were solved with the first round's demos in view
    assert present(home, 2, "reflection") == of("right")
    probes = [one for one in home.run.trajectories.values() if one.phase == "2/recall-free"]
    assert {one.task.id for one in probes} == {task.id for task in TASKS}
    assert all(not one.recalled and one.policy.memory is None and one.policy.adapter == "round-1" for one in probes)
    assert {one.task.id for one in probes if one.solved} == of("left")
    assert {one.split("/")[0] for row in home.rows(second) for one in row.sources} == {"1", "2"}
    assert not any("recall-free" in source for row in home.rows(second) for source in row.sources)


def test_an_earlier_round_s_policy_still_sees_what_retired_later(house):
    home = house(solving("left"))
    first = agentevolve(home.policy, TASKS, home.run, **SETTINGS)
    second = lived(home, 2)(first)
    for name, policy in (("before", first), ("after", second)):
        recall = policy.recall.model_copy(update={"nearest": {"demo": 4}, "tokens": 5000})
        home.answers_with(home.run.folder / "adapters" / policy.stamp().adapter)
        rollout(policy.using(recall=recall), make_tasks(1, split="val", length=2), home.run, phase=name)
    seen = {
        name: next(one.recalled for one in home.run.trajectories.values() if one.phase == name) for name in ("before", "after")
    }
    tasks = {entry.id: entry.task for entry in read_entries(home.run.folder / "memory", as_of=1)}
    assert {tasks[id] for id in seen["before"]} == of("left")
    assert all(id.startswith("demo/2/") for id in seen["after"])
    # rolled back: the second round is lived through again from the first one's policy, and sees its demos
    home.run.round = 3
    home.answers_with(home.run.folder / "adapters" / "round-1")
    agentevolve(first, TASKS, home.run, **SETTINGS)
    assert all(id.startswith("demo/1/") for one in home.run.acquired(3) for id in one.recalled)
    assert all(one.recalled for one in home.run.acquired(3))


def test_contexts_and_tokens_fall_when_everything_is_absorbed(house):
    home = house(solving("left", "right"))
    policy = agentevolve(home.policy, TASKS, home.run, **SETTINGS)
    tokens = []
    for number in (2, 3):
        policy = lived(home, number)(policy)
        attempts = home.run.acquired(number)
        assert all(one.solved for one in attempts)
        tokens.append(sum(len(f"{one.system} {one.context} {one.prompt}".split()) for one in attempts))
    assert all(home.seen("2/acquire")) and not any(home.seen("3/acquire"))
    assert tokens[1] < 0.8 * tokens[0]
    assert present(home, 3) == set()
    assert not [one for one in home.run.trajectories.values() if one.phase == "3/recall-free"]  # nothing was left to try


def test_a_forgotten_task_comes_back(house):
    known = ["left", "right"]
    home = house(lambda messages, choices: solving(*known)(messages, choices))
    first = agentevolve(home.policy, TASKS, home.run, **SETTINGS)
    policy = lived(home, 2)(first)
    assert present(home, 2) == set()
    known.clear()
    policy = lived(home, 3)(policy)
    assert present(home, 3, "reflection") == {task.id for task in TASKS}  # all its attempts had failed
    known.append("right")
    home.run.round = 4
    home.answers_with(home.run.folder / "adapters" / "round-3")
    agentevolve(policy, TASKS, home.run, **SETTINGS)
    assert present(home, 4, "reflection") == of("left")


def test_a_round_lived_through_again_asks_nothing_and_gives_the_same(house):
    home = house(solving("left"))
    first = agentevolve(home.policy, TASKS, home.run, **SETTINGS)
    second = lived(home, 2)(first)
    third = lived(home, 3)(second)
    calls, ledger = len(home.model.calls), (home.run.folder / "memory" / "entries.jsonl")
    before = ledger.read_bytes() if ledger.exists() else b""
    home.run.round = 1
    use_model(home.run, home.model, home.policy)
    again = agentevolve(home.policy, TASKS, home.run, **SETTINGS)
    assert (again, lived(home, 2)(first), lived(home, 3)(second)) == (first, second, third)
    assert len(home.model.calls) == calls
    assert before == (ledger.read_bytes() if ledger.exists() else b"")


def test_weights_are_distilled_into_every_mth_round_only(house):
    home = house(solving("left"))
    policy = agentevolve(home.policy, TASKS, home.run, every=2, **SETTINGS)
    assert policy.adapter is None and present(home, 1) == of("left")
    home.run.round = 2
    policy = agentevolve(policy, TASKS, home.run, every=2, **SETTINGS).using(round=2)
    assert policy.stamp().adapter == "round-2"
    assert lived(home, 3, every=2)(policy).stamp().adapter == "round-2"
    assert sorted(path.name for path in (home.run.folder / "adapters").iterdir()) == ["round-2"]
    never = house(solving("left"))
    assert agentevolve(never.policy, TASKS, never.run, every=0, **SETTINGS).adapter is None


def test_the_same_weights_try_a_task_once_and_no_more_than_asked(house):
    home = house(solving("left"))
    first = agentevolve(home.policy, TASKS, home.run, **SETTINGS)
    home.answers_with(home.run.folder / "adapters" / "round-1")
    tried = []
    for number in (2, 3, 4):
        home.run.round = number
        absorbed(first, home.run, attempts=2, most=3)
        tried.append([one.task.id for one in home.run.trajectories.values() if one.phase == f"{number}/recall-free"])
    assert [len(set(found)) for found in tried] == [3, 1, 0] and [len(found) for found in tried] == [6, 2, 0]
    assert not set(tried[0]) & set(tried[1])


@pytest.mark.parametrize("off", [{"absorb": 0}, {"rows": 0}])
def test_nothing_is_tried_without_weights_or_when_it_is_off(house, off):
    home = house(solving("left"))
    policy = agentevolve(home.policy, TASKS, home.run, **SETTINGS | off)
    home.run.round = 2
    if policy.adapter:
        home.answers_with(home.run.folder / "adapters" / "round-1")
    agentevolve(policy, TASKS, home.run, **SETTINGS | off)
    assert not [one for one in home.run.trajectories.values() if "recall-free" in one.phase]
    assert read_ledger(home.run.folder / "memory").stats()["retired"] == 0


def test_a_policy_without_weights_gets_all_its_demos_again(house):
    home = house(solving("left"))
    first = agentevolve(home.policy, TASKS, home.run, **SETTINGS)
    second = lived(home, 2)(first)
    assert present(home, 2) == of("right")
    home.run.round = 3
    use_model(home.run, home.model, home.policy)
    agentevolve(second.using(adapter=None, memory=None), TASKS, home.run, **SETTINGS)
    assert present(home, 3) == of("left") | of("right")
