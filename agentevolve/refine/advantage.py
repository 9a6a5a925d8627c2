"""Group-relative advantages: how much better an attempt did than the others at the same task (GRPO, 2402.03300, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev

from agentevolve.records import Trajectory
from agentevolve.refine.filters import learnable


def advantages(trajectories: Sequence[Trajectory], *, groups: int | None = None) -> dict[str, float]:
    """By attempt: its reward less the mean of its task's attempts, over their standard deviation (outcome supervision).

    A task whose attempts all did as well as each other has nothing to tell. Of the others at most `groups` count, in the order
    given.
    """
    by_task: dict[str, list[Trajectory]] = {}
    for one in learnable(trajectories):
        by_task.setdefault(one.task.id, []).append(one)
    told = [attempts for attempts in by_task.values() if len({one.reward for one in attempts}) > 1][:groups]
    return {one.id: worth for attempts in told for one, worth in zip(attempts, _standard(attempts), strict=True)}


def _standard(attempts: Sequence[Trajectory]) -> list[float]:
    rewards = [one.reward for one in attempts]
    mean, spread = fmean(rewards), pstdev(rewards)
    return [(reward - mean) / spread for reward in rewards]
