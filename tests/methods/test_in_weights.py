"""Methods that change the weights: which attempts become rows, and what the rows say."""

import math
from pathlib import Path

import pytest
from worlds import lamp, learner, make_tasks, use_model, walker

from agentevolve.local.adapter import LoraSettings, read_adapter, read_rows
from agentevolve.local.rows import Row
from agentevolve.local.train import read_tokens
from agentevolve.methods.agent_evol import agent_evol
from agentevolve.methods.eto import eto
from agentevolve.methods.fireact import fireact
from agentevolve.methods.grpo import grpo
from agentevolve.methods.hint_distill import hint_distill
from agentevolve.methods.rest_em import rest_em
from agentevolve.methods.rest_react import rest_react
from agentevolve.methods.rft import rft
from agentevolve.methods.self_rewarding import self_rewarding
from agentevolve.methods.spin import spin
from agentevolve.methods.star import star
from agentevolve.protocols import BudgetExceeded
from agentevolve.run.budget import Allowance

QUICK = LoraSettings(rank=2, alpha=4, epochs=1)
TASKS = make_tasks(4, length=2, limit=4)


def sources(rows) -> list[str]:
    return sorted(source for row in rows for source in row.sources)


def text(rows) -> str:
    return "\n".join(message.content for row in rows for message in (*row.prompt, *row.completion))


def test_a_training_that_does_not_fit_the_budget_is_refused_before_its_first_step(house):
    home = house(walker)
    home.run.budget = Allowance(300)
    with pytest.raises(BudgetExceeded):
        fireact(home.policy, TASKS, home.run, lora=QUICK)
    assert home.run.spent().trained_tokens == home.run.budget.spent.trained_tokens == 0
    assert not [path for path in (home.run.folder / "adapters").glob("*") if path.is_dir()]
    home.run.budget = Allowance(10**6)
    learnt = fireact(home.policy, TASKS, home.run, lora=QUICK)
    trained = read_adapter(Path(learnt.adapter)).tokens
    assert trained > 300
    assert home.run.costs()["update"].trained_tokens == home.run.budget.spent.trained_tokens == trained
    home.run.budget = Allowance(0)
    assert fireact(home.policy, TASKS, home.run, lora=QUICK) == learnt  # it is there and paid for


@pytest.mark.parametrize(("epochs", "objective", "kl", "reads"), [(2, "sft", 0.0, 2), (2, "sft", 0.5, 4), (2, "dpo", 0.0, 3)])
def test_what_a_training_reads_is_every_row_in_every_epoch_and_what_it_is_compared_with(epochs, objective, kl, reads):
    rows = [Row([1, 2, 3], [2, 3, 4], other_ids=[5, 6] if objective == "dpo" else []), Row([1], [1])]
    settings = LoraSettings(epochs=epochs, objective=objective, kl=kl)
    assert read_tokens(rows, settings) == reads * (4 + (2 if objective == "dpo" else 0))


def even(messages, choices) -> str:
    """Walks to the lamp on the left, and waits where it is on the right."""
    return "left" if "lamp is left" in messages[-1].content else "wait"


def test_rest_em_trains_on_solved_attempts_of_this_round_from_the_base(house):
    home = house(even)
    first = rest_em(home.policy, TASKS, home.run, samples=3, lora=QUICK)
    solved = [task for task in TASKS if lamp(task) == "left"]
    assert sources(home.rows(first)) == sorted(f"1/acquire/{task.id}/0" for task in solved)  # three alike are one way
    home.run.round = 2
    second = rest_em(home.policy, TASKS[:2], home.run, samples=1, lora=QUICK)
    assert sources(home.rows(second)) == [f"2/acquire/{TASKS[0].id}/0"]
    assert [read_adapter(home.run.folder / "adapters" / name).start for name in ("round-1", "round-2")] == [None, None]


def test_agent_evol_trains_on_one_way_a_task_of_all_rounds_from_the_base(house):
    home = house(even)
    agent_evol(home.policy, TASKS[:2], home.run, samples=2, lora=QUICK)
    home.run.round = 2
    policy = agent_evol(home.policy, TASKS[2:], home.run, samples=2, lora=QUICK)
    assert sources(home.rows(policy)) == [f"1/acquire/{TASKS[0].id}/0", f"2/acquire/{TASKS[2].id}/0"]
    assert read_adapter(home.run.folder / "adapters" / "round-2").start is None


def test_star_rationalises_what_failed_and_trains_without_the_hint(house):
    def hinted(messages, choices):
        told = any("This is how it can be done: right, right." in message.content for message in messages)
        return walker(messages, choices) if told else even(messages, choices)

    home = house(hinted)
    policy = star(home.policy, TASKS, home.run, lora=QUICK)
    rows = home.rows(policy)
    assert sources(rows) == sorted(
        f"1/acquire/{task.id}/0" if lamp(task) == "left" else f"1/acquire/hinted/{task.id}/0" for task in TASKS
    )
    assert "how it can be done" not in text(rows)
    shown = [one for one in home.run.trajectories.values() if one.hint]
    assert {one.task.id for one in shown} == {task.id for task in TASKS if lamp(task) == "right"}
    again = house(hinted)
    plain = star(again.policy, TASKS, again.run, rationalize=False, lora=QUICK)
    assert len(again.rows(plain)) == 2


def test_rft_keeps_every_different_way(house):
    def dithering(messages, choices):
        lost = "you stand at 0" in messages[-1].content and len(messages) < 4 and len(home.model.calls) % 2
        return "wait" if lost else walker(messages, choices)

    home = house(dithering)
    policy = rft(home.policy, TASKS[:1], home.run, samples=6, lora=QUICK)
    ways = {tuple(m.content for m in row.completion if m.role == "assistant") for row in home.rows(policy)}
    assert ways == {("left", "left"), ("wait", "left", "left")} and len(home.rows(policy)) == 2


def test_rest_react_trains_on_what_the_judge_praised_whatever_the_reward(house):
    def judging(messages, choices):
        if "How well was the task done?" in messages[-1].content:
            return "5" if "lamp is right" in messages[-1].content else "1"
        return even(messages, choices)

    home = house(judging)
    policy = rest_react(home.policy, TASKS, home.run, samples=1, lora=QUICK)
    failed = [task for task in TASKS if lamp(task) == "right"]
    assert sources(home.rows(policy)) == sorted(f"1/acquire/{task.id}/0" for task in failed)
    assert all(home.run.trajectories[source].reward == 0 for source in sources(home.rows(policy)))


def test_fireact_learns_from_its_teacher(house):
    home = house(lambda *_: "wait")
    policy = fireact(home.policy, TASKS, home.run, lora=QUICK)
    assert home.model.calls == []
    assert {home.run.trajectories[source].policy.model for source in sources(home.rows(policy))} == {"oracle"}
    assert len(home.rows(policy)) == 4


DPO = LoraSettings(rank=2, alpha=4, epochs=1, objective="dpo")


def said(messages) -> list[str]:
    return [message.content for message in messages if message.role == "assistant"]


def test_eto_imitates_first_then_prefers_by_reward_and_cuts_the_failed_attempt(house):
    tasks = make_tasks(2, length=2, limit=12)
    home = house(even)
    home.answers_with(home.run.folder / "adapters" / "imitation-1")
    policy = eto(home.policy, tasks, home.run, longer=3, imitate=QUICK, prefer=DPO)
    adapters = home.run.folder / "adapters"
    assert sources(read_rows(adapters / "imitation-1")) == [f"1/acquire/teacher/{task.id}/0" for task in tasks]
    (row,) = home.rows(policy)  # at the other task agent and expert did as well
    assert row.sources == (f"1/acquire/teacher/{tasks[1].id}/0", f"1/acquire/explore/{tasks[1].id}/0")
    assert (said(row.completion), said(row.rejected)) == (["right"] * 2, ["wait"] * 5)
    assert read_adapter(adapters / "round-1").start == read_adapter(adapters / "imitation-1").identity


def test_grpo_learns_from_every_attempt_at_a_task_that_some_solved_and_others_did_not(house):
    begun = []

    def lucky(messages, choices):
        begun.extend(["attempt"] * (len(messages) == 2))
        return walker(messages, choices) if "Corridor two" in messages[1].content and len(begun) % 3 else "wait"

    home = house(lucky)
    policy = grpo(home.policy, TASKS, home.run, samples=6, lora=QUICK.model_copy(update={"objective": "grpo"}))
    rows = home.rows(policy)
    attempts = [home.run.trajectories[row.id] for row in rows]
    assert {one.task.id for one in attempts} == {TASKS[1].id} and len(rows) == 6
    solved = sum(one.solved for one in attempts)
    assert solved == 4
    good, bad = math.sqrt((6 - solved) / solved), -math.sqrt(solved / (6 - solved))
    assert [row.weight for row in rows] == pytest.approx([good if one.solved else bad for one in attempts])
    home.run.round = 2
    home.answers_with(home.run.folder / "adapters" / "round-1")
    further = grpo(policy, TASKS, home.run, samples=6, lora=QUICK.model_copy(update={"objective": "grpo"}))
    assert read_adapter(Path(further.adapter)).start == read_adapter(Path(policy.adapter)).identity


def test_spin_prefers_the_experts_way_to_the_own_one_of_the_last_two_rounds(house):
    home = house(lambda *_: "wait")
    policy = home.policy
    for number in (1, 2, 3):
        home.run.round = number
        use_model(home.run, home.model, policy)
        trained = spin(policy, TASKS[:2], home.run, lora=DPO)
        rows = home.rows(trained)
        expected = {f"{made}/acquire/own/{task.id}/0" for made in range(max(1, number - 1), number + 1) for task in TASKS[:2]}
        assert {source for row in rows for source in row.sources if "/own/" in source} == expected
    assert all(said(row.rejected)[0] == "wait" and said(row.completion)[0] == lamp(TASKS[0]) for row in rows[:1])


def test_self_rewarding_pairs_its_best_and_worst_by_its_own_grade(house):
    def grading(messages, choices):
        if "How well was the task done?" in messages[-1].content:
            return "4" if "> wait" in messages[-1].content else "1"
        return "wait" if len(messages) == 2 and choices[0] == "left" else walker(messages, choices)

    home = house(grading)
    policy = self_rewarding(home.policy, TASKS[:1], home.run, samples=4, lora=DPO)
    (row,) = home.rows(policy)
    better, worse = (home.run.trajectories[source] for source in row.sources)
    assert "wait" in [turn.action for turn in better.turns] and "wait" not in [turn.action for turn in worse.turns]


def test_what_was_recalled_is_distilled_away(house):
    home = house(learner)
    policy = hint_distill(home.policy, TASKS, home.run, samples=1, primer=1, lora=QUICK)
    recalling = [one for one in home.run.trajectories.values() if one.phase == "1/acquire/recalling"]
    assert [bool(one.recalled) for one in recalling] == [True] * 3
    assert sources(home.rows(policy)) == sorted(one.id for one in recalling if one.solved) != []
    assert "game that was won" not in text(home.rows(policy))
    assert policy.memory is None
