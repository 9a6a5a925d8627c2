"""How compared methods stand: against no learning, corrected for their number, with what cannot be concluded from it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median
from typing import Any, Literal, NamedTuple

from agentevolve.evaluate.stats import holm, paired, pass_at, pooled, sign_flip, wilson
from agentevolve.records import Difference, Record, Trajectory, Usage

LEVEL = 0.05
Verdict = Literal["better", "worse", "no difference shown", "nothing learnt"]


class Arm(NamedTuple):
    """The attempts of one policy at the held-out tasks: `name` says which policy, `when` after which round ("end": the last)."""

    name: str
    when: str
    attempts: list[Trajectory]


class Learnt(NamedTuple):
    """One method (or the controls) on one task set with one seed: what was measured, and what learning cost.

    `costs` are the run's by phase; `rounds` holds, for each round that fitted the budget, the attempts and the cost so far.
    `taught` says whether it saw solutions of the worlds.
    """

    tasks: str
    seed: int
    method: str
    arms: list[Arm]
    costs: dict[str, Usage]
    rounds: list[tuple[int, Usage]]
    taught: bool

    def arm(self, name: str) -> list[Trajectory]:
        """The last measured attempts of the arm; none if it was not measured."""
        return next((arm.attempts for arm in reversed(self.arms) if arm.name == name), [])


class Point(Record):
    """A place on a method's learning curve: what learning has cost so far, a mean over seeds, and the success then, in [0, 1]."""

    round: int
    episodes: float
    tokens: float
    usd: float
    success: float
    seeds: int


class Standing(Record):
    """One method on one task set, all seeds pooled. Differences are of mean success, against no learning if not said otherwise.

    `p` is of a paired permutation test over tasks, `p_holm` the same corrected for all methods and task sets of the comparison.
    `turns` and `tokens` are means an attempt when measured; `episodes`, `learning_tokens`, `usd` and `seconds` means a seed, of
    learning up to the last round that counts, `seconds` on the clock with all workers busy. `rounds` is how many counted, by
    seed. `from_memory` is learnt minus shuffled memory, `without_memory` the weights alone; `forgotten` the difference on the
    guard's tasks (below zero: forgotten).
    """

    tasks: str
    method: str
    n: int
    success: float
    low: float
    high: float
    difference: Difference | None = None
    by_seed: tuple[float, ...] = ()
    p: float = 1.0
    p_holm: float = 1.0
    verdict: Verdict | None = None
    k: int = 1
    pass_any: float = 0.0
    pass_all: float = 0.0
    turns: float = 0.0
    tokens: float = 0.0
    episodes: float = 0.0
    learning_tokens: float = 0.0
    usd: float = 0.0
    seconds: float = 0.0
    rounds: tuple[int, ...] = ()
    taught: bool = False
    errors: int = 0
    from_memory: Difference | None = None
    without_memory: Difference | None = None
    forgotten: Difference | None = None
    curve: tuple[Point, ...] = ()


def standings(found: Sequence[Learnt], samples: int) -> list[Standing]:
    """One row for each task set's controls and methods, in the order in which they were run; `samples` is the k of pass@k."""
    rows = []
    for tasks in dict.fromkeys(one.tasks for one in found):
        of_set = [one for one in found if one.tasks == tasks]
        names = list(dict.fromkeys(one.method for one in of_set))
        controls, *methods = [[one for one in of_set if one.method == name] for name in names]
        base = [one.arm("no learning") for one in controls]
        for name in ("no learning", "random", "oracle"):
            rows.append(_row(tasks, name, [one.arm(name) for one in controls], samples))
        for learnt in methods:
            rows.append(_method(learnt, base, [one.arm("guard") for one in controls], samples))
    return _corrected(rows)


def _row(tasks: str, name: str, runs: Sequence[Sequence[Trajectory]], samples: int) -> Standing:
    played = [attempt for run in runs for attempt in run]
    solved, n = sum(attempt.solved for attempt in played), len(played)
    low, high = wilson(solved, n)
    chances = [pass_at(samples, run) for run in runs]
    return Standing(
        tasks=tasks,
        method=name,
        n=n,
        success=solved / n,
        low=low,
        high=high,
        k=samples,
        pass_any=fmean(some for some, _ in chances),
        pass_all=fmean(every for _, every in chances),
        turns=fmean(len(attempt.turns) for attempt in played),
        tokens=fmean(attempt.usage.tokens for attempt in played),
        errors=sum(attempt.end == "error" for attempt in played),
    )


def _method(
    learnt: Sequence[Learnt], base: Sequence[list[Trajectory]], guard: Sequence[list[Trajectory]], samples: int
) -> Standing:
    """A method's row; where no round fitted the budget, what it stands at is no learning."""
    runs = [one.arm("learnt") or before for one, before in zip(learnt, base, strict=True)]
    row = _row(learnt[0].tasks, learnt[0].method, runs, samples)
    last = [one.rounds[-1] if one.rounds else (0, Usage()) for one in learnt]
    pairs = list(zip(base, runs, strict=True))
    shuffled = [one.arm("shuffled memory") for one in learnt]
    bare = [one.arm("empty memory") for one in learnt]
    after = [one.arm("guard") for one in learnt]
    found: dict[str, Any] = {
        "difference": pooled(pairs),
        "by_seed": tuple(paired(before, run).mean for before, run in pairs),
        "p": sign_flip(pairs),
        "verdict": None if any(one.rounds for one in learnt) else "nothing learnt",
        "episodes": fmean(episodes for episodes, _ in last),
        "learning_tokens": fmean(usage.tokens for _, usage in last),
        "usd": fmean(usage.usd for _, usage in last),
        "seconds": fmean(usage.seconds for _, usage in last),
        "rounds": tuple(len(one.rounds) for one in learnt),
        "taught": any(one.taught for one in learnt),
        "from_memory": pooled(list(zip(shuffled, runs, strict=True))) if all(shuffled) else None,
        "without_memory": pooled(list(zip(base, bare, strict=True))) if all(bare) else None,
        "forgotten": pooled(list(zip(guard, after, strict=True))) if all(guard) and all(after) else None,
        "curve": _curve(learnt, base),
    }
    return row.model_copy(update=found)


def _curve(learnt: Sequence[Learnt], base: Sequence[list[Trajectory]]) -> tuple[Point, ...]:
    """Success after each round that every seed has finished, from no learning on."""
    measured = [
        [before, *(arm.attempts for arm in one.arms if arm.name == "learnt")] for one, before in zip(learnt, base, strict=True)
    ]
    costs = [[(0, Usage()), *one.rounds] for one in learnt]
    points = []
    for number in range(min(map(len, measured))):
        played = [attempt for run in measured for attempt in run[number]]
        spent = [cost[number] for cost in costs]
        points.append(
            Point(
                round=number,
                episodes=fmean(episodes for episodes, _ in spent),
                tokens=fmean(usage.tokens for _, usage in spent),
                usd=fmean(usage.usd for _, usage in spent),
                success=fmean(attempt.solved for attempt in played),
                seeds=len(learnt),
            )
        )
    return tuple(points)


def _corrected(rows: Sequence[Standing]) -> list[Standing]:
    """The rows with Holm's correction over all methods, and the verdicts that follow from it."""
    corrected = iter(holm([row.p for row in rows if row.difference]))
    return [_judged(row, next(corrected)) if row.difference else row for row in rows]


def _judged(row: Standing, p_holm: float) -> Standing:
    verdict: Verdict = "no difference shown"
    if row.verdict == "nothing learnt":
        verdict = "nothing learnt"
    elif row.difference and p_holm < LEVEL:
        verdict = "better" if row.difference.mean > 0 else "worse"
    return row.model_copy(update={"p_holm": p_holm, "verdict": verdict})


def caveats(rows: Sequence[Standing], model: str) -> list[str]:
    """What cannot be concluded from the comparison, as sentences."""
    judged = [row for row in rows if row.difference]
    seeds = max((len(row.by_seed) for row in judged), default=0)
    halves = [
        100 * (row.difference.high - row.difference.low) / 2
        for row in judged
        if row.difference and row.difference.high > row.difference.low
    ]
    said = [
        f"All of it is about {model} on {_listed([row.tasks for row in rows])}: another model or other tasks may rank otherwise.",
        "Each method is held against no learning; methods are not tested against each other.",
        f"Intervals and p-values are over tasks, with the {seeds} seeds as they fell: of other trainings they say nothing more "
        "than the differences by seed show.",
    ]
    if halves:
        said.append(f"A difference of less than about {median(halves):.0f} points (the median half width) would not be seen.")
    if still := [row.method for row in judged if row.verdict == "no difference shown"]:
        said.append(f"No difference shown is not equality; it is all that is known of: {_listed(still)}.")
    if none := [row.method for row in judged if row.verdict == "nothing learnt"]:
        said.append(f"Not one round fitted the budget, which says nothing about the method: {_listed(none)}.")
    if some := [row.method for row in judged if row.rounds and 0 in row.rounds and any(row.rounds)]:
        said.append(f"With some seeds not one round fitted the budget, and no learning stands in for it: {_listed(some)}.")
    if taught := [row.method for row in judged if row.taught]:
        said.append(f"These saw solutions that the worlds gave, free of tokens, which the others did not: {_listed(taught)}.")
    return said


def _listed(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(names))
