"""What a run holds open (a model, a memory, the nodes of a cluster), and for which of the rounds that are at work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

Part = TypeVar("Part")


class Parts:
    """The open parts by kind and key. Each holder has one of a kind; what no holder has any more is closed.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], Any] = {}
        self._held: dict[tuple[str, str], str] = {}  # by holder and kind: the key

    def take(self, holder: str, kind: str, key: str, make: Callable[[], Part]) -> Part:
        """The open part of this kind and key, made if there is none, in the place of what `holder` had of the kind."""
        with self._lock:
            if (kind, key) not in self._open:
                self._open[kind, key] = make()
            self._held[holder, kind] = key
            found: Part = self._open[kind, key]
            self._tidy()
            return found

    def rest(self, holder: str, kind: str) -> None:
        """Close what `holder` has of this kind until it is used again, unless another has it, too."""
        with self._lock:
            key = self._held.get((holder, kind))
            if key is not None and [held for (_, of), held in self._held.items() if of == kind].count(key) == 1:
                self._open[kind, key].close()

    def leave(self, holder: str, *kinds: str) -> None:
        """Let `holder` have nothing more of these kinds."""
        with self._lock:
            for kind in kinds:
                self._held.pop((holder, kind), None)
            self._tidy()

    def close(self) -> None:
        """Close all of them."""
        with self._lock:
            try:
                for part in self._open.values():
                    part.close()
            finally:
                self._open.clear()
                self._held.clear()

    def _tidy(self) -> None:
        held = {(kind, key) for (_, kind), key in self._held.items()}
        for place in [place for place in self._open if place not in held]:
            self._open.pop(place).close()
