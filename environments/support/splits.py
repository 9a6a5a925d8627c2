"""Splits for worlds that are made from a seed: no seed and no first text is in two of them."""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

from agentevolve.protocols import AgentevolveError
from agentevolve.records import SPLITS, Split, Task

SIZE = 10_000  # seeds of a split
FIRST: dict[Split, int] = {split: place * SIZE for place, split in enumerate(SPLITS)}
TRIES = 200  # worlds looked at before a task is given up: enough unless nearly all of them start alike


def checked(task: Task) -> int:
    """The task's seed. Raises AgentevolveError when its split does not have it."""
    first = FIRST[task.split]
    if not first <= task.seed < first + SIZE:
        raise AgentevolveError(
            f"task {task.id}: seed {task.seed} is not of {task.split}; its seeds are {first}–{first + SIZE - 1}"
        )
    return task.seed


def owner(text: str) -> Split:
    """The split that has the worlds with this first text: a third of all texts each, by their checksum."""
    return SPLITS[crc32(text.encode("utf-8", "replace")) % len(SPLITS)]


def held_out(task: Task, start: Callable[[int], str]) -> str:
    """Start worlds until one's first text is its split's own; return that text.

    `start` starts the world of a seed and says its first text. The seeds are the task's own, then one more round through all
    splits each time (+30,000), so no two tasks share any. Raises AgentevolveError when nearly all worlds start alike.
    """
    round_trip = SIZE * len(SPLITS)
    for seed in range(checked(task), checked(task) + TRIES * round_trip, round_trip):
        if owner(text := start(seed)) == task.split:
            return text
    raise AgentevolveError(f"task {task.id}: {TRIES} seeds gave no start that is {task.split}'s own: they look too much alike")
