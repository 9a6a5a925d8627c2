"""The course of an evolution: what was in place after each round, how well it did, and how it acted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from agentevolve.evaluate.habits import habits
from agentevolve.evaluate.stats import pooled_report
from agentevolve.loop.policies import GATE
from agentevolve.records import Outcome, Record, Report, Trajectory
from agentevolve.run.folder import Run


class Stage(Record):
    """After a round, all seeds together: `arms` are those whose policies were in place, one a seed.

    Their success in [0, 1] on the round's held-out tasks with its 95% interval, over `n` attempts; how many `different` actions
    they took in all, the share of `inadmissible` ones, and the `tokens` of all attempts for each that was solved (0: none was).
    """

    round: int
    arms: tuple[str, ...]
    n: int
    success: float
    low: float
    high: float
    different: int
    inadmissible: float
    tokens: float


class Measured(NamedTuple):
    """What a run had in place after a round: the arm's name, and what its attempts came to."""

    run: Run
    arm: str
    attempts: list[Outcome]

    def lived(self) -> Iterator[Trajectory]:
        """The attempts themselves, one after the other."""
        known = self.run.attempts()
        return (known[one.id] for one in self.attempts)


def course(runs: Sequence[Run]) -> list[Stage]:
    """The rounds that every run has ended, in order. What somebody took back later does not change what was measured then."""
    by_run = [_stages(run) for run in runs]
    shared = sorted(set.intersection(*(set(found) for found in by_run))) if by_run else []
    return [_stage(number, [found[number] for found in by_run]) for number in shared]


def in_place(runs: Sequence[Run], name: str) -> dict[int, Report]:
    """The same as reports of an arm called `name`, by round: what a picture is drawn from."""
    by_run = [_stages(run) for run in runs]
    rounds = [stage.round for stage in course(runs)]
    return {number: pooled_report(name, [found[number].attempts for found in by_run]) for number in rounds}


def _stages(run: Run) -> dict[int, Measured]:
    evaluations, found = run.evaluations(), {}
    for name, fact in run.facts.items():
        if name.startswith(GATE):
            evaluation = name.removeprefix(GATE)
            arm = fact["promoted"] or fact["holder"]
            ids = evaluations[evaluation][arm]
            known = run.outcomes(ids)
            found[int(evaluation.partition("/")[0])] = Measured(run, arm, [known[id] for id in ids])
    return found


def _stage(number: int, measured: Sequence[Measured]) -> Stage:
    attempts = [one for run in measured for one in run.attempts]
    told = pooled_report("in place", [run.attempts for run in measured])
    acted = habits(one for run in measured for one in run.lived())
    solved = sum(one.solved for one in attempts)
    return Stage(
        round=number,
        arms=tuple(run.arm for run in measured),
        n=told.n,
        success=told.success,
        low=told.low,
        high=told.high,
        different=acted.different,
        inadmissible=acted.inadmissible,
        tokens=told.usage.tokens / solved if solved else 0.0,
    )
