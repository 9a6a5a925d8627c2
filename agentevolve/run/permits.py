"""Who may make an attempt now, where two rounds share a run's workers: the round under way goes before what is made ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK = 0.25  # seconds between two looks whether anything may still begin


class Permits:
    """As many attempts under way at a time as a run has workers, of both rounds together. Safe to use from several threads."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting = 0  # attempts of the round under way
        self._changed = threading.Condition()

    @contextmanager
    def one(self, alive: Callable[[], None], *, ahead: bool) -> Iterator[None]:
        """Hold one meanwhile. What is made `ahead` waits as long as an attempt of the round under way does.

        `alive` is called from time to time while it waits, and raises where nothing new may begin.
        """
        with self.waiting(ahead=ahead), self._changed:
            while not self.take(ahead=ahead):
                alive()
                self._changed.wait(LOOK)
        try:
            yield
        finally:
            self.give_back()

    @contextmanager
    def waiting(self, *, ahead: bool) -> Iterator[None]:
        """Somebody waits for one meanwhile, and is given it before what is made `ahead`."""
        with self._changed:
            self._waiting += not ahead
        try:
            yield
        finally:
            with self._changed:
                self._waiting -= not ahead
                self._changed.notify_all()

    def take(self, *, ahead: bool) -> bool:
        """Take one, to be given back, if there is one to be had now."""
        with self._changed:
            had = self._free > 0 and not (ahead and self._waiting)
            self._free -= had
            return had

    def give_back(self) -> None:
        """Let another have it."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()
