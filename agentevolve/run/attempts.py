"""The attempts of a run by their ids, each read from the journal when it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from agentevolve.records import Trajectory
from agentevolve.run.checkpoint import STANDS, Checkpoint


class Attempts(Mapping[str, Trajectory]):
    """The attempts of these states as they are at any time, by state and in the order in which they came to stand.

    Looking whether one is there, counting and going through the ids reads none of them.
    """

    def __init__(self, counted: Checkpoint, *states: int) -> None:
        self._counted, self._states = counted, states

    def __getitem__(self, id: str) -> Trajectory:
        place = self._counted.place(id, self._states)
        if place is None:
            raise KeyError(id)
        return self._counted.body(id, *place)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._counted.place(id, self._states) is not None

    def __iter__(self) -> Iterator[str]:
        return self._counted.ids(self._states)

    def __len__(self) -> int:
        return self._counted.count(self._states)

    def __repr__(self) -> str:
        return f"{len(self)} attempts"


class Lent:
    """The attempts of a bare model that other runs have made, by what makes two of them the same (`folder.same`)."""

    def __init__(self) -> None:
        self._runs: list[Checkpoint] = []

    def take(self, counted: Checkpoint) -> None:
        """Lend those of one more run, where no run before it has the same."""
        self._runs.append(counted)

    def get(self, same: str) -> Trajectory | None:
        """The attempt that is the same; None if nobody has made it."""
        for counted in self._runs:
            id = counted.like(mark(same))
            if id is not None and (place := counted.place(id, (STANDS,))):
                return counted.body(id, *place)
        return None

    def __contains__(self, same: str) -> bool:
        return any(counted.like(mark(same)) is not None for counted in self._runs)

    def __bool__(self) -> bool:
        return bool(self._runs)


def mark(same: str) -> bytes:
    """What makes two attempts the same, in 16 bytes."""
    return hashlib.sha256(same.encode("utf-8", "surrogatepass")).digest()[:16]
