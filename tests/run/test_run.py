"""A run: its journal is its memory of what is done, its seeds are its own, its parts are opened once."""

import json

import pytest
from worlds import make_tasks

from agentevolve.protocols import AgentevolveError, BudgetExceeded
from agentevolve.records import PolicyStamp, Trajectory, Turn, Usage
from agentevolve.run.budget import Budget
from agentevolve.run.folder import JOURNAL, Run, read_run


def made(id: str, **fields) -> Trajectory:
    turn = Turn(action="left", observation="…", usage=Usage(calls=1, prompt_tokens=5, completion_tokens=2, usd=0.25))
    task = make_tasks(1)[0]
    return Trajectory(id=id, task=task, policy=PolicyStamp(model="m"), phase="p", turns=(turn,), end="terminated", **fields)


def test_what_was_added_is_there_when_the_run_is_opened_again(tmp_path):
    run = Run(tmp_path / "run")
    run.add(made("a", reward=1.0))
    run.once("fact", lambda: {"x": [1, 2]})
    again = read_run(tmp_path / "run")
    assert again.trajectories == run.trajectories == {"a": made("a", reward=1.0)}
    assert again.facts == {"fact": {"x": [1, 2]}}


def test_an_attempt_is_journalled_once(tmp_path):
    run = Run(tmp_path)
    run.add(made("a"))
    with pytest.raises(ValueError, match="a is journalled already"):
        run.add(made("a"))
    assert [line["kind"] for line in run.journal.read()] == ["run", "trajectory"]


def test_once_makes_a_value_once_over_processes(tmp_path):
    calls = []
    for _ in range(2):
        run = Run(tmp_path)
        for _ in range(2):
            assert run.once("name", lambda: calls.append(1) or len(calls)) == 1
        run.close()
    assert calls == [1]


def test_settle_refuses_a_run_that_is_about_something_else(tmp_path):
    run = Run(tmp_path)
    for _ in range(2):
        run.settle("policy", {"model": "a"})
    with pytest.raises(AgentevolveError, match="holds a run of another policy"):
        run.settle("policy", {"model": "b"})


def test_settle_refuses_a_run_that_something_else_began(tmp_path):
    run = Run(tmp_path)
    run.add(made("a"))
    with pytest.raises(AgentevolveError, match="holds a run of another policy"):
        run.settle("policy", {"model": "a"})
    assert run.facts == {}


@pytest.mark.parametrize(
    "line",
    [
        {"data": 1},
        {"kind": "fact", "data": 1},
        {"kind": "trajectory"},
        {"kind": "trajectory", "data": {"id": "a"}},
        {"kind": "fact", "name": ["a"], "data": 1},
    ],
)
def test_a_line_that_is_no_record_is_named_and_nothing_is_changed(tmp_path, line):
    run = Run(tmp_path)
    run.add(made("a"))
    run.close()
    path = tmp_path / JOURNAL
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    before = path.read_bytes()
    with pytest.raises(AgentevolveError, match=r"journal\.jsonl:3: not a line of a run's journal") as caught:
        Run(tmp_path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"kind": "run", "format": 2}, r"format: 2 is not known; this version reads format 1"),
        ({"kind": "run", "format": "1"}, r"format: '1' is not known; this version reads format 1"),
        ({"kind": "run"}, r"not a line of a run's journal \('format'\)"),
        ({"kind": "verdict", "data": 1}, r"kind: 'verdict' is not known; this version reads kind fact, run, trajectory"),
        ({"kind": ["fact"], "name": "a", "data": 1}, r"kind: \['fact'\] is not known"),
    ],
)
@pytest.mark.parametrize("use", [Run, read_run])
def test_a_journal_of_a_newer_version_says_so_and_nothing_is_changed(tmp_path, line, said, use):
    path = tmp_path / JOURNAL
    path.write_text(json.dumps(line) + "\n")
    before = path.read_bytes()
    with pytest.raises(AgentevolveError, match=rf"journal\.jsonl:1: {said}"):
        use(tmp_path)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {JOURNAL: before}


def test_a_journal_begins_with_its_format_and_one_of_before_goes_on_without(tmp_path):
    run = Run(tmp_path / "new")
    run.once("fact", lambda: 1)
    run.once("other", lambda: 2)
    assert run.journal.read()[0] == {"kind": "run", "format": 1}
    old = [line for line in run.journal.read() if line["kind"] != "run"]
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in old))
    run = Run(tmp_path / "old")
    run.once("third", lambda: 3)
    assert read_run(tmp_path / "old").facts == {"fact": 1, "other": 2, "third": 3}
    assert len(run.journal.read()) == 3


def test_lone_surrogates_in_an_attempt_and_in_a_fact_are_read_back(tmp_path):
    run = Run(tmp_path)
    run.add(made("a", error="bad \ud800 sign"))
    run.once("fact", lambda: "\udfff")
    again = read_run(tmp_path)
    assert (again.trajectories, again.facts) == (run.trajectories, {"fact": "\udfff"})


def test_seeds_hang_on_the_runs_seed_and_the_parts_alone(tmp_path):
    one, same, other = Run(tmp_path / "a", seed=1), Run(tmp_path / "b", seed=1), Run(tmp_path / "c", seed=2)
    assert one.derive("x", 1) == same.derive("x", 1)
    seeds = {run.derive(*parts) for run in (one, other) for parts in (("x", 1), ("x", 2), ("y", 1))}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert one.derive("half \ud800 pair") == same.derive("half \ud800 pair") != one.derive("half \udfff pair")
    assert one.rng("x").random() == same.rng("x").random() != other.rng("x").random()


def test_what_was_spent_counts_attempts_and_reflections_over_processes(tmp_path):
    run = Run(tmp_path)
    run.add(made("a"))
    run.once("ask/reflection/a", lambda: {"text": "t", "usage": Usage(calls=1, prompt_tokens=3, usd=1.0).model_dump()})
    run.once("ask/reflection/b", lambda: {"text": "", "error": "down"})
    spent = read_run(tmp_path).spent()
    assert (spent.calls, spent.tokens, spent.usd) == (2, 10, 1.25)


def test_a_limit_counts_what_an_earlier_process_spent(tmp_path):
    run = Run(tmp_path)
    run.add(made("a"))
    run.close()
    run = Run(tmp_path)
    run.limit(12, None)
    with run.budget.reserve(5, 0.0) as book:
        book(Usage(prompt_tokens=1))
    with pytest.raises(BudgetExceeded, match="12 tokens"), run.budget.reserve(5, 0.0):
        raise AssertionError("a call that could pass the limit was let through")


def test_a_budget_holds_what_is_under_way_and_gives_back_what_was_not_used():
    budget = Budget(max_tokens=10, max_usd=1.0)
    with budget.reserve(6, 0.1):
        with pytest.raises(BudgetExceeded, match="10 tokens"), budget.reserve(5, 0.0):
            raise AssertionError
        with pytest.raises(BudgetExceeded, match=r"\$1 "), budget.reserve(1, 0.95):
            raise AssertionError
    with budget.reserve(10, 1.0):
        pass
    assert budget.spent == Usage()


class Part:
    def __init__(self):
        self.closed = 0

    def close(self):
        self.closed += 1


def test_a_part_is_opened_once_and_closed_when_another_takes_its_place(tmp_path):
    run = Run(tmp_path)
    first = run.part("model", "a", Part)
    assert run.part("model", "a", Part) is first
    second = run.part("model", "b", Part)
    assert second is not first
    assert (first.closed, second.closed) == (1, 0)
    run.close()
    run.close()
    assert (first.closed, second.closed) == (1, 1)
