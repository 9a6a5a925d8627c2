"""What a run may spend: every model call, training and attempt asks first, so a limit stops a run before it is passed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agentevolve.protocols import BudgetExceeded
from agentevolve.records import Usage


class Budget:
    """What a run may still spend. Thread-safe; `None` is no limit, tokens count everything that `Usage.tokens` does."""

    def __init__(
        self,
        max_tokens: int | None = None,
        max_usd: float | None = None,
        spent: Usage | None = None,
        *,
        max_episodes: int | None = None,
        episodes: int = 0,
    ) -> None:
        self.max_tokens, self.max_usd, self.max_episodes = max_tokens, max_usd, max_episodes
        self.spent, self.episodes = spent or Usage(), episodes
        self._held_tokens, self._held_usd = 0, 0.0
        self._lock = threading.Lock()

    @contextmanager
    def reserve(self, tokens: int, usd: float) -> Iterator[Callable[[Usage], None]]:
        """Hold an upper estimate of one call's cost while it runs; the yielded function books what it really cost.

        Raises BudgetExceeded, before anything is sent, when the estimate does not fit into what is left.
        """
        with self._lock:
            self._admit(tokens, usd)
            self._held_tokens += tokens
            self._held_usd += usd
        try:
            yield self.book
        finally:
            with self._lock:
                self._held_tokens -= tokens
                self._held_usd -= usd

    def afford(self, tokens: int) -> None:
        """Raise BudgetExceeded if so many tokens, which are known before they are spent, are more than what is left."""
        with self._lock:
            self._fit(tokens, 0.0)

    def attempt(self) -> None:
        """Count one attempt. Raises BudgetExceeded when as many as allowed were made."""
        with self._lock:
            if self.max_episodes is not None and self.episodes >= self.max_episodes:
                raise BudgetExceeded(f"all {self.max_episodes} attempts that are allowed were made")
            self.episodes += 1

    def book(self, usage: Usage) -> None:
        """Count what something has cost."""
        with self._lock:
            self.spent += usage

    def _admit(self, tokens: int, usd: float) -> None:
        self._fit(self._held_tokens + tokens, self._held_usd + usd)

    def _fit(self, tokens: int, usd: float) -> None:
        if self.max_tokens is not None and self.spent.tokens + tokens > self.max_tokens:
            raise BudgetExceeded(f"the next step could pass the limit of {self.max_tokens} tokens ({self.spent.tokens} spent)")
        if self.max_usd is not None and self.spent.usd + usd > self.max_usd:
            raise BudgetExceeded(f"the next step could pass the limit of ${self.max_usd:g} (${self.spent.usd:.4f} spent)")


class Allowance(Budget):
    """A budget for comparing: what is refused depends on what was spent alone, not on estimates or on who runs beside whom.

    A call is admitted while the limit is not reached, so each worker may pass it by one call; `kept` says whether it was kept.
    """

    def kept(self) -> bool:
        """Whether no more than the allowance was spent."""
        return (self.max_tokens is None or self.spent.tokens <= self.max_tokens) and (
            self.max_usd is None or self.spent.usd <= self.max_usd
        )

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Spend outside of the allowance meanwhile: measuring is not learning."""
        limits = self.max_tokens, self.max_usd, self.max_episodes, self.spent, self.episodes
        self.max_tokens = self.max_usd = self.max_episodes = None
        try:
            yield
        finally:
            self.max_tokens, self.max_usd, self.max_episodes, self.spent, self.episodes = limits

    def _admit(self, tokens: int, usd: float) -> None:
        tokens_left = self.max_tokens is None or self.spent.tokens < self.max_tokens
        if not (tokens_left and (self.max_usd is None or self.spent.usd < self.max_usd)):
            self._fit(1, 1e-9)
