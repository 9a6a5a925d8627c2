"""The gate: a candidate replaces the policy in place only if it is measurably better; otherwise it is rolled back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from agentevolve.evaluate.stats import paired
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
    difference is promoted. Choosing the best of several on `val` flatters it: that is why `test` is touched once, after.
    """
    differences = {name: paired(in_place, attempts) for name, attempts in candidates.items()}
    passed = {name: found for name, found in differences.items() if _bar(found, rule) > margin}
    promoted = max(passed, key=lambda name: passed[name].mean) if passed else None
    return {
        "promoted": promoted,
        "holder": holder,
        "rule": rule,
        "margin": margin,
        "differences": {name: found.model_dump() for name, found in differences.items()},
    }


def _bar(difference: Difference, rule: Literal["interval", "mean"]) -> float:
    return difference.low if rule == "interval" else difference.mean
