"""How compared methods stand: against no learning, corrected for their number, with what cannot be concluded from it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from statistics import fmean, median
from typing import Any, Literal, NamedTuple

from agentevolve.evaluate.stats import (
    LEVEL,
    holm,
    judged,
    no_verdict,
    paired,
    pass_at,
    pooled,
    pooled_report,
    sign_flip,
    success,
)
from agentevolve.records import Difference, Record, Trajectory, Usage

Verdict = Literal["better", "worse", "no difference shown", "no verdict", "nothing learnt"]


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

    `n` attempts count, `errors` were lost. `p` is of a paired permutation test over tasks, `p_holm` the same corrected for all
    methods and task sets of the comparison; with too many pairs lost there is neither, and `no_verdict` says why. `by_seed` has
    None for a seed without a pair that counts. `turns` and `tokens` are means an attempt when measured; `episodes`,
    `learning_tokens`, `usd` and `seconds` means a seed, of learning up to the last round that counts, `seconds` on the clock with
    all workers busy. `rounds` is how many counted, by seed. `from_memory` is learnt minus shuffled memory, `without_memory` the
    weights alone; `forgotten` the difference on the guard's tasks (below zero: forgotten); `asked` how the model was held.
    """

    tasks: str
    method: str
    n: int
    success: float
    low: float
    high: float
    difference: Difference | None = None
    by_seed: tuple[float | None, ...] = ()
    p: float | None = None
    p_holm: float | None = None
    verdict: Verdict | None = None
    no_verdict: str = ""
    asked: tuple[str, ...] = ()
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
    found = pooled_report(name, runs)
    chances = [pass_at(samples, run) for run in runs]
    return Standing(
        tasks=tasks,
        method=name,
        n=found.n,
        success=found.success,
        low=found.low,
        high=found.high,
        k=samples,
        pass_any=fmean(some for some, _ in chances),
        pass_all=fmean(every for _, every in chances),
        turns=found.turns,
        tokens=found.usage.tokens / (found.n + found.errors),
        errors=found.errors,
        asked=found.asked,
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
    difference, by_seed = pooled(pairs), [paired(before, run) for before, run in pairs]
    found: dict[str, Any] = {
        "difference": difference,
        "by_seed": tuple(one.mean if one.pairs else None for one in by_seed),
        "p": sign_flip(pairs) if judged(difference) else None,
        "no_verdict": no_verdict(difference, {"no learning": list(chain(*base)), learnt[0].method: list(chain(*runs))}),
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
        if all(attempt.lost for attempt in played):
            continue
        spent = [cost[number] for cost in costs]
        points.append(
            Point(
                round=number,
                episodes=fmean(episodes for episodes, _ in spent),
                tokens=fmean(usage.tokens for _, usage in spent),
                usd=fmean(usage.usd for _, usage in spent),
                success=success(played),
                seeds=len(learnt),
            )
        )
    return tuple(points)


def _corrected(rows: Sequence[Standing]) -> list[Standing]:
    """The rows with Holm's correction over all methods that can be judged, and the verdicts that follow from it."""
    corrected = iter(holm([row.p for row in rows if row.p is not None]))
    return [_judged(row, None if row.p is None else next(corrected)) if row.difference else row for row in rows]


def _judged(row: Standing, p_holm: float | None) -> Standing:
    verdict: Verdict = "no difference shown"
    if row.verdict == "nothing learnt":
        verdict = "nothing learnt"
    elif p_holm is None:
        verdict = "no verdict"
    elif row.difference and p_holm < 1 - LEVEL:
        verdict = "better" if row.difference.mean > 0 else "worse"
    return row.model_copy(update={"p_holm": p_holm, "verdict": verdict})


def caveats(rows: Sequence[Standing], model: str) -> list[str]:
    """What cannot be concluded from the comparison, as sentences."""
    shown = [row for row in rows if row.difference]
    seeds = max((len(row.by_seed) for row in shown), default=0)
    fell = "one seed as it fell: of other trainings they say nothing"
    if seeds > 1:
        fell = f"{seeds} seeds as they fell: of other trainings they say nothing more than the differences by seed show"
    halves = [100 * (row.difference.high - row.difference.low) / 2 for row in shown if row.difference and row.p is not None]
    said = [
        f"All of it is about {model} on {_listed([row.tasks for row in rows])}: another model or other tasks may rank otherwise.",
        "Each method is held against no learning; methods are not tested against each other.",
        f"Intervals and p-values are over tasks, with the {fell}.",
    ]
    if halves:
        said.append(f"A difference of less than about {median(halves):.0f} points (the median half width) would not be seen.")
    if still := [row.method for row in shown if row.verdict == "no difference shown"]:
        said.append(f"No difference shown is not equality; it is all that is known of: {_listed(still)}.")
    said += [f"No verdict on {row.method}: {row.no_verdict}." for row in shown if row.verdict == "no verdict"]
    bare = {row.tasks: row.asked for row in rows if row.method == "no learning"}
    for row in shown:
        if row.asked != bare[row.tasks]:
            ways = f"{'; '.join(row.asked)}, against {'; '.join(bare[row.tasks])}"
            said.append(f"{row.method} was asked otherwise than no learning ({ways}): its difference may be that.")
    if none := [row.method for row in shown if row.verdict == "nothing learnt"]:
        said.append(f"Not one round fitted the budget, which says nothing about the method: {_listed(none)}.")
    if some := [row.method for row in shown if row.rounds and 0 in row.rounds and any(row.rounds)]:
        said.append(f"With some seeds not one round fitted the budget, and no learning stands in for it: {_listed(some)}.")
    if taught := [row.method for row in shown if row.taught]:
        said.append(f"These saw solutions that the worlds gave, free of tokens, which the others did not: {_listed(taught)}.")
    return said


def _listed(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(names))
