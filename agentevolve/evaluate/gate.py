"""The gate: a candidate replaces the policy in place only if it is measurably better and forgets nothing; else it is rolled back.

It may look at the measurement before its end, at shares of the tasks: a clear winner or loser then ends it. The chance of
error is spent over the looks by O'Brien and Fleming's rule (Lan and DeMets 1983): little early, most of it at the end. Each look
has what has come due since the one before (Bonferroni), so that all together promote what is no better in at most 2.5% of cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from statistics import NormalDist
from typing import Any, Literal

from agentevolve.evaluate.stats import LEVEL, no_verdict, paired
from agentevolve.records import Difference, Trajectory

Rule = Literal["interval", "mean", "none"]
ERROR = 1 - LEVEL


def looks(tasks: int, times: int) -> list[tuple[int, float]]:
    """When the gate looks: after how many of the tasks, and with which chance of error (two-sided); the last time after all."""
    at = sorted({ceil(tasks * number / times) for number in range(1, times + 1)})
    due = [_due(many / tasks) for many in at]
    return [(many, now - before) for many, now, before in zip(at, due, [0.0, *due], strict=False)]


def gate(
    holder: str,
    in_place: Sequence[Trajectory],
    candidates: Mapping[str, Sequence[Trajectory]],
    rule: Rule,
    margin: float,
    error: float = ERROR,
) -> dict[str, Any]:
    """Which candidate is promoted over `holder`, if any, with every candidate's paired difference against it.

    All were measured on the same tasks and seeds. Of the candidates that pass the rule (by "none" all do) the one with
    the largest mean difference is promoted; `passed` are all of them, in that order. The intervals share their chance of error
    among the candidates (Bonferroni): each has the `level` 1 - error / candidates, so that of several that are no better than
    the holder one is promoted in at most 2.5% of the cases. Choosing the best of several on `val` flatters it still: that is
    why `test` is touched once, after.

    When more than LOST_SHARE of a candidate's pairs were lost nobody is promoted, and `no_verdict` says why; else it is empty.
    """
    level = 1 - error / max(1, len(candidates))
    differences = {name: paired(in_place, attempts, level) for name, attempts in candidates.items()}
    lost = [no_verdict(found, {holder: in_place, name: candidates[name]}) for name, found in differences.items()]
    passing = [] if any(lost) else [name for name, found in differences.items() if rule == "none" or _bar(found, rule) > margin]
    passed = sorted(passing, key=lambda name: -differences[name].mean)
    return {
        "promoted": passed[0] if passed else None,
        "passed": passed,
        "no_verdict": next(filter(None, lost), ""),
        "holder": holder,
        "rule": rule,
        "margin": margin,
        "level": level,
        "differences": {name: found.model_dump() for name, found in differences.items()},
    }


def settled(verdict: Mapping[str, Any]) -> bool:
    """Whether a look need not wait for the rest of the tasks: a candidate has won, or each of them has clearly lost."""
    ends = [found["high"] for found in verdict["differences"].values()]
    return bool(verdict["passed"]) or (bool(ends) and max(ends) <= verdict["margin"])


def forgets(before: Sequence[Trajectory], after: Sequence[Trajectory], rule: Rule, tolerance: float) -> tuple[Difference, bool]:
    """What a candidate changes on tasks that it did not practise, and whether it may be worse there by more than `tolerance`.

    By the rule "interval" it may unless the lower end of the difference says that it is not; by "mean" the difference decides.
    """
    found = paired(before, after)
    return found, rule != "none" and _bar(found, rule) < -tolerance


def _bar(difference: Difference, rule: Rule) -> float:
    return difference.low if rule == "interval" else difference.mean


def _due(share: float) -> float:
    """How much of the chance of error may have been spent when this share of the tasks is measured."""
    normal = NormalDist()
    return 2 * (1 - normal.cdf(normal.inv_cdf(1 - ERROR / 2) / sqrt(share)))
