"""The gate: a candidate replaces the policy in place only if it is measurably better; otherwise it is rolled back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from agentevolve.evaluate.stats import LEVEL, no_verdict, paired
from agentevolve.records import Difference, Trajectory


def gate(
    holder: str,
    in_place: Sequence[Trajectory],
    candidates: Mapping[str, Sequence[Trajectory]],
    rule: Literal["interval", "mean"],
    margin: float,
) -> dict[str, Any]:
    """Which candidate is promoted over `holder`, if any, with every candidate's paired difference against it.

    All were measured on the same tasks and seeds. Of the candidates that pass the rule the one with the largest mean
    difference is promoted. The intervals share their chance of error among the candidates (Bonferroni): each has the `level`
    1 - 0.05 / candidates, so that of several that are no better than the holder one is promoted in at most 2.5% of the cases.
    Choosing the best of several on `val` flatters it still: that is why `test` is touched once, after.

    When more than LOST_SHARE of a candidate's pairs were lost nobody is promoted, and `no_verdict` says why; else it is empty.
    """
    level = 1 - (1 - LEVEL) / max(1, len(candidates))
    differences = {name: paired(in_place, attempts, level) for name, attempts in candidates.items()}
    lost = [no_verdict(found, {holder: in_place, name: candidates[name]}) for name, found in differences.items()]
    passed = {name: found for name, found in differences.items() if _bar(found, rule) > margin and not any(lost)}
    return {
        "promoted": max(passed, key=lambda name: passed[name].mean) if passed else None,
        "no_verdict": next(filter(None, lost), ""),
        "holder": holder,
        "rule": rule,
        "margin": margin,
        "level": level,
        "differences": {name: found.model_dump() for name, found in differences.items()},
    }


def _bar(difference: Difference, rule: Literal["interval", "mean"]) -> float:
    return difference.low if rule == "interval" else difference.mean
