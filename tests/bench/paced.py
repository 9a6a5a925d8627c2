"""A corridor whose steps take as long as a model's calls do, and a method that learns by taking its time: for simulate.py."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

from worlds import Corridor

from agentevolve.act.rollout import rollout
from agentevolve.policy import Policy
from agentevolve.records import Task
from agentevolve.refine import demos
from agentevolve.run.folder import Run
from agentevolve.update import remember


def pace(task: Task) -> dict[str, Any]:
    """A walk of 2 to 6 steps, each of a length of time with the median `pause` and a lognormal spread of 0.6, by the seed."""
    luck = random.Random(task.seed)
    return {"length": luck.randint(2, 6), "pause": task.data["pause"] * luck.lognormvariate(0, 0.6)}


class Paced(Corridor):
    """A corridor at this pace."""

    def reset(self, task: Task) -> tuple[str, dict[str, Any]]:
        return super().reset(task.model_copy(update={"data": pace(task)}))

    def oracle(self, task: Task) -> list[str]:
        return super().oracle(task.model_copy(update={"data": pace(task)}))


def pausing(policy: Policy, tasks: Sequence[Task], run: Run, *, training: float = 10.0) -> Policy:
    """An attempt at each task, `training` seconds during which another machine trains, and a demo."""
    attempts = rollout(policy, tasks, run, phase=f"{run.round}/acquire")
    time.sleep(training)
    return remember(policy, demos(attempts[:1], run.round), run)
