"""What a run may spend: every model call asks first, so a limit stops a run before the call that would pass it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agentevolve.protocols import BudgetExceeded
from agentevolve.records import Usage


class Budget:
    """What a run may still spend. Thread-safe; `None` is no limit, tokens count prompt and completion."""

    def __init__(self, max_tokens: int | None = None, max_usd: float | None = None, spent: Usage | None = None) -> None:
        self.max_tokens, self.max_usd = max_tokens, max_usd
        self.spent = spent or Usage()
        self._held_tokens, self._held_usd = 0, 0.0
        self._lock = threading.Lock()

    @contextmanager
    def reserve(self, tokens: int, usd: float) -> Iterator[Callable[[Usage], None]]:
        """Hold an upper estimate of one call's cost while it runs; the yielded function books what it really cost.

        Raises BudgetExceeded, before anything is sent, when the estimate does not fit into what is left.
        """
        self._hold(tokens, usd)
        try:
            yield self._book
        finally:
            with self._lock:
                self._held_tokens -= tokens
                self._held_usd -= usd

    def _hold(self, tokens: int, usd: float) -> None:
        with self._lock:
            wanted = self.spent.tokens + self._held_tokens + tokens
            if self.max_tokens is not None and wanted > self.max_tokens:
                raise BudgetExceeded(
                    f"the next model call could pass the limit of {self.max_tokens} tokens ({self.spent.tokens} spent)"
                )
            dollars = self.spent.usd + self._held_usd + usd
            if self.max_usd is not None and dollars > self.max_usd:
                raise BudgetExceeded(
                    f"the next model call could pass the limit of ${self.max_usd:g} (${self.spent.usd:.4f} spent)"
                )
            self._held_tokens += tokens
            self._held_usd += usd

    def _book(self, usage: Usage) -> None:
        with self._lock:
            self.spent += usage
