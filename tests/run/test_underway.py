"""What a killed process was paying for: charged once when the run goes on, and never twice."""

import json

import pytest
from worlds import make_tasks, new_run, use_model, walker

from agentevolve.act.rollout import rollout
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy
from agentevolve.records import Usage
from agentevolve.run.folder import Run
from agentevolve.run.underway import NOTES, Underway, doing

RANDOM = Policy(model="random")
PAID = Usage(calls=1, prompt_tokens=30, completion_tokens=2)


def note(folder, *calls: tuple[str, int, Usage | None]) -> None:
    """The notes of a process that was killed: what for, the estimate, and the cost if it was answered."""
    folder.mkdir(exist_ok=True)
    notes = Underway(folder)
    for name, tokens, usage in calls:
        with doing(name):
            call = notes.begin(tokens, 0.01)
        if usage is not None:
            notes.end(call, usage)


def test_answered_calls_are_charged_by_their_cost_and_those_under_way_by_their_estimate(tmp_path):
    note(tmp_path, ("p/t/0#0", 100, PAID), ("p/t/0#0", 100, PAID), ("p/t/1#0", 100, None), ("ask/q#0", 50, PAID))
    run = Run(tmp_path)
    spent = run.spent()
    assert (spent.tokens, spent.estimated) == (32 * 3 + 100, 100)
    assert spent.usd == pytest.approx(0.01)
    assert {phase: cost.tokens for phase, cost in run.costs().items() if cost.tokens} == {"acquire": 164, "refine": 32}
    run.close()
    assert not (tmp_path / NOTES).exists()
    assert Run(tmp_path).spent() == spent


def test_what_the_journal_tells_is_not_charged_again(tmp_path):
    run = new_run(tmp_path)
    (one,) = rollout(use_model(run, ScriptedModel(walker), RANDOM), make_tasks(1), run, phase="p")
    run.lose("p/other/0", PAID)
    spent = run.spent()
    run.close()
    note(tmp_path, (f"{one.id}#0", 100, PAID), ("p/other/0#0", 100, PAID))  # killed before the notes were cleared
    again = Run(tmp_path)
    assert again.spent() == spent
    again.close()
    note(tmp_path, (f"{one.id}#1", 100, PAID))  # another making of it
    assert Run(tmp_path).spent().tokens == spent.tokens + 32


def test_being_killed_while_charging_charges_once(tmp_path):
    note(tmp_path, ("p/t/0#0", 100, PAID), ("p/t/1#0", 100, PAID))
    before = (tmp_path / NOTES).read_bytes()
    run = Run(tmp_path)
    spent = run.spent()
    run.close()
    (tmp_path / NOTES).write_bytes(before)
    assert Run(tmp_path).spent() == spent


@pytest.mark.parametrize(
    "line", ["{", "[]", "null", '{"call": 7}', '{"call": 1, "usage": {"calls": "x"}}', '{"of": 1}', "\udcff"]
)
def test_a_damaged_note_says_nothing(tmp_path, line):
    note(tmp_path, ("p/t/0#0", 100, PAID))
    with (tmp_path / NOTES).open("ab") as file:
        file.write(line.encode("utf-8", "surrogateescape"))
    assert Run(tmp_path).spent().tokens == 32


def test_a_run_that_ends_leaves_no_notes_and_one_that_reads_writes_none(tmp_path):
    run = new_run(tmp_path)
    with doing(run.making("p/t/0")), run.budget.reserve(10, 0.0) as book:
        assert json.loads((tmp_path / NOTES).read_text().splitlines()[0])["of"] == "p/t/0#0"
        book(PAID)
    run.close()
    assert not (tmp_path / NOTES).exists()
