"""Pairs of a better and a worse attempt at one task, for contrast (survey 2404.14387, section 4.2.2, negative solutions)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from agentevolve.records import Trajectory
from agentevolve.refine.filters import learnable


class Pair(NamedTuple):
    """Two attempts at the same task, `better` preferred to `worse`."""

    better: Trajectory
    worse: Trajectory


def _reward(trajectory: Trajectory) -> float:
    return trajectory.reward


def best_worst(trajectories: Sequence[Trajectory], score: Callable[[Trajectory], float] = _reward) -> list[Pair]:
    """Of each task's attempts the best and the worst by `score`, where they differ; among equals the shortest is the best."""
    by_task: dict[str, list[Trajectory]] = {}
    for trajectory in sorted(learnable(trajectories), key=lambda one: (-score(one), len(one.turns), one.id)):
        by_task.setdefault(trajectory.task.id, []).append(trajectory)
    found = [Pair(attempts[0], attempts[-1]) for attempts in by_task.values()]
    return [pair for pair in found if score(pair.better) > score(pair.worse)]


def against(ours: Sequence[Trajectory], theirs: Sequence[Trajectory]) -> list[Pair]:
    """Each of our attempts with one of theirs at the same task, the better first; either may be it (ETO, 2403.02502)."""
    others = {one.task.id: one for one in reversed(learnable(theirs))}
    matched = [(one, others[one.task.id]) for one in learnable(ours) if one.task.id in others]
    return [Pair(*sorted(both, key=lambda one: -one.reward)) for both in matched if both[0].reward != both[1].reward]


def divergence(pair: Pair) -> int:
    """The number of the first turn, from 0, at which the two act differently."""
    actions = zip((turn.action for turn in pair.better.turns), (turn.action for turn in pair.worse.turns), strict=False)
    return next((turn for turn, (a, b) in enumerate(actions) if a != b), min(len(pair.better.turns), len(pair.worse.turns)))


def differing(pairs: Sequence[Pair]) -> list[Pair]:
    """Those whose two attempts took different actions: of the others there is nothing to prefer."""
    return [pair for pair in pairs if divergence(pair) < max(len(pair.better.turns), len(pair.worse.turns))]
