"""What takes longer than a page may: made by a thread, kept until its state changes; meanwhile what was there before is shown."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple, TypeVar

from agentevolve.protocols import AgentevolveError

Value = TypeVar("Value")


class NotYet(AgentevolveError):
    """What is asked for is being made, and was not there before."""


class Soon:
    """Values by key, each made by one thread at a time, and again once its state has changed. Safe to use from several threads.

    `patience` is how many seconds whoever asks waits for it; None: until it is there. `done` counts what was made so far.
    """

    def __init__(self, patience: float | None = None) -> None:
        self.patience, self.done = patience, 0
        self._kept: dict[Hashable, _Made] = {}
        self._threads: dict[Hashable, threading.Thread] = {}
        self._lock, self._here = threading.Lock(), threading.local()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Let this thread wait, meanwhile, until what it asks for is there."""
        self._here.patient = True
        try:
            yield
        finally:
            self._here.patient = False

    def get(self, key: Hashable, state: Hashable, make: Callable[[], Value]) -> Value:
        """The value of that state, or, where making it takes longer than the patience, the one before.

        Raises NotYet where there is none before, and what `make` has raised.
        """
        patience = None if getattr(self._here, "patient", False) else self.patience
        while (known := self._kept.get(key)) is None or known.state != state:
            self._begun(key, state, make).join(patience)
            if patience is not None:
                known = self._kept.get(key)
                break
        if known is None or (known.state != state and known.error):
            raise NotYet("it is being read")
        if known.error:
            if not isinstance(known.error, AgentevolveError):  # it may go well the next time
                self._kept.pop(key, None)
            raise known.error
        return known.value  # type: ignore[no-any-return]

    def fresh(self, key: Hashable, state: Hashable) -> bool:
        """Whether the value of that state is there."""
        known = self._kept.get(key)
        return known is not None and known.state == state

    def _begun(self, key: Hashable, state: Hashable, make: Callable[[], Any]) -> threading.Thread:
        """The thread that makes what has that key: one that is at it, else a new one."""
        with self._lock:
            thread = self._threads.get(key)
            if thread is None or not thread.is_alive():
                thread = threading.Thread(target=self._make, args=(key, state, make), daemon=True)
                self._threads[key] = thread
                thread.start()
            return thread

    def _make(self, key: Hashable, state: Hashable, make: Callable[[], Any]) -> None:
        try:
            made = _Made(state, make(), None)
        except Exception as error:  # whoever asks is told
            made = _Made(state, None, error)
        self._kept[key] = made
        self.done += 1


class _Made(NamedTuple):
    state: Hashable
    value: Any
    error: Exception | None
