"""What attempts agree on, when nobody looks at a reward (Memory of Thought, 2305.05181)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agentevolve.records import Entry, Trajectory
from agentevolve.refine.filters import agreement, cap, keep
from agentevolve.refine.lessons import cases


def settled(trajectories: Sequence[Trajectory], *, entropy: float) -> list[Trajectory]:
    """Of each task whose attempts agree, the first of the majority, solved or not; equal shares are no majority.

    They agree if the entropy, in nats, of what they did (the whole sequence of actions) is at most `entropy`.
    """
    shares = agreement(trajectories)
    tasks: dict[str, list[str]] = {}
    for one in keep(trajectories, at_least=0.0, scores=shares):
        tasks.setdefault(one.task.id, []).append(one.id)
    # the mean over attempts of -log(share) is the sum over ways of -share log(share)
    calm = {task for task, ids in tasks.items() if sum(-math.log(shares[id]) for id in ids) / len(ids) <= entropy}
    return cap([one for one in keep(trajectories, at_least=0.5 + 1e-9, scores=shares) if one.task.id in calm], 1)


def unverified(trajectories: Sequence[Trajectory], round: int) -> list[Entry]:
    """A case of each attempt of a majority; its reward is not in it, and the agent is told that nobody knows its outcome."""
    about = {"reward": 0.0, "counts": {"unverified": 1}}
    made = cases(keep(trajectories, at_least=0.0), round)
    return [one.model_copy(update={**about, "id": f"{one.id}@{round}"}) for one in made]
