"""Texts that say nearly the same, by the nearness of their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentevolve.memory import EntryMemory
from agentevolve.memory.keys import key_id
from agentevolve.records import Entry, Trajectory
from agentevolve.refine.filters import learnable
from agentevolve.run.folder import Run

ROUNDS = 20  # of k-means

if TYPE_CHECKING:
    from agentevolve.memory.embed import Vectors


def vectors(texts: Sequence[str], memory: EntryMemory, run: Run) -> Vectors:
    """The texts as unit vectors of the memory's embedding model, shape (len(texts), dim); the run pays once for each text."""
    for text in texts:
        run.spend(f"embed/text/{key_id(text)}", memory.cost(text))
    return memory.vectors(texts)


def distinct(new: Sequence[Entry], held: Sequence[Entry], memory: EntryMemory, run: Run, *, below: float = 0.9) -> list[Entry]:
    """Those new entries whose text is less like that of each held one, and of each new one before it, than this cosine.

    Entries of different environments are never alike.
    """
    rows = vectors([one.text for one in (*held, *new)], memory, run)
    kept = list(range(len(held)))
    everything = [*held, *new]
    for place in range(len(held), len(everything)):
        others = [other for other in kept if everything[other].env == everything[place].env]
        if all(float(rows[other] @ rows[place]) < below for other in others):
            kept.append(place)
    return [everything[place] for place in kept[len(held) :]]


def grouped(trajectories: Sequence[Trajectory], memory: EntryMemory, run: Run, *, above: float) -> list[list[Trajectory]]:
    """The attempts in groups whose tasks, in one environment, look alike at the start: at least so near to the group's first."""
    found = learnable(trajectories)
    rows = vectors([one.prompt for one in found], memory, run)
    groups: list[list[int]] = []
    for place, one in enumerate(found):
        like = [group for group in groups if found[group[0]].task.env == one.task.env]
        near = next((group for group in like if float(rows[group[0]] @ rows[place]) >= above), None)
        if near is None:
            groups.append([place])
        else:
            near.append(place)
    return [[found[place] for place in group] for group in groups]


def varied(entries: Sequence[Entry], memory: EntryMemory, run: Run, n: int) -> list[Entry]:
    """Of each environment's entries one for each of `n` clusters of keys: the one nearest to the cluster's middle."""
    kept = set()
    for env in dict.fromkeys(one.env for one in entries):
        here = [one for one in entries if one.env == env]
        kept |= {here[place].id for place in _middles(vectors([one.key for one in here], memory, run), n)}
    return [one for one in entries if one.id in kept]


def _middles(rows: Vectors, n: int) -> set[int]:
    """The rows nearest to the middles of at most `n` clusters (k-means that starts from rows far from each other)."""
    import numpy as np

    if not n or not len(rows):
        return set()
    starts = [0]
    while len(starts) < min(n, len(rows)):
        far = (rows @ rows[starts].T).max(axis=1)
        far[starts] = np.inf  # a row starts one cluster, also where another one is equal to it
        starts.append(int(far.argmin()))
    middles = rows[starts]
    for _ in range(ROUNDS):
        labels = (rows @ middles.T).argmax(axis=1)
        held = [rows[labels == place] for place in range(len(middles))]
        middles = np.stack([found.mean(axis=0) if len(found) else middle for found, middle in zip(held, middles, strict=True)])
        middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    near = rows @ middles.T
    labels = near.argmax(axis=1)
    return {int(np.where(labels == label, near[:, label], -np.inf).argmax()) for label in set(labels.tolist())}
