"""Which of the known tasks to practise next (survey 2404.14387, section 4.1, selective)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from agentevolve.records import Task, Trajectory


def select(tasks: Sequence[Task], attempts: Sequence[Trajectory], n: int) -> list[Task]:
    """The `n` tasks with the most to learn: solved in about half of the attempts so far; untried ones count as such.

    Tasks that always or never succeed teach little. Equal ones stay in the order given.
    """
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for attempt in attempts:
        outcomes[attempt.task.id].append(attempt.solved)

    def distance(task: Task) -> float:
        seen = outcomes.get(task.id)
        return abs(sum(seen) / len(seen) - 0.5) if seen else 0.0

    return sorted(tasks, key=distance)[:n]
