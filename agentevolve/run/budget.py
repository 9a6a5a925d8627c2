"""What a run may spend: every model call, training and attempt asks first, so a limit stops a run before it is passed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agentevolve.protocols import BudgetExceeded, Stopped
from agentevolve.records import Usage
from agentevolve.run.underway import Underway


class Budget:
    """What a run may still spend. Thread-safe; `None` is no limit, tokens count everything that `Usage.tokens` does.

    `notes` is where calls under way are noted, for the case that the process is killed.
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        max_usd: float | None = None,
        spent: Usage | None = None,
        *,
        max_episodes: int | None = None,
        episodes: int = 0,
        notes: Underway | None = None,
    ) -> None:
        self.max_tokens, self.max_usd, self.max_episodes = max_tokens, max_usd, max_episodes
        self.spent, self.episodes = spent or Usage(), episodes
        self._notes = notes
        self._held_tokens, self._held_usd = 0, 0.0
        self._lock = threading.Lock()
        self._end = threading.Event()

    @contextmanager
    def reserve(self, tokens: int, usd: float) -> Iterator[Callable[[Usage], None]]:
        """Hold an upper estimate of one call's cost while it runs; the yielded function books what it really cost.

        Raises BudgetExceeded, before anything is sent, when the estimate does not fit into what is left; Stopped after `stop`.
        """
        self.alive()
        with self._lock:
            self._admit(tokens, usd)
            self._held_tokens += tokens
            self._held_usd += usd
        booked = Usage()

        def book(usage: Usage) -> None:
            nonlocal booked
            booked += usage
            self.book(usage)

        call = self._notes.begin(tokens, usd) if self._notes else None
        try:
            yield book
        finally:
            with self._lock:
                self._held_tokens -= tokens
                self._held_usd -= usd
            if self._notes:
                self._notes.end(call, booked)

    def stop(self) -> None:
        """Let nothing new begin: what asks from now on is refused."""
        self._end.set()

    @property
    def stopped(self) -> bool:
        """Whether nothing new may begin."""
        return self._end.is_set()

    def alive(self) -> None:
        """Raise Stopped if `stop` was called."""
        if self.stopped:
            raise Stopped("the run was asked to end")

    def rest(self, seconds: float) -> None:
        """Wait so long; raise Stopped as soon as `stop` is called."""
        self._end.wait(seconds)
        self.alive()

    def afford(self, tokens: int) -> None:
        """Raise BudgetExceeded if so many tokens, which are known before they are spent, are more than what is left."""
        self.alive()
        with self._lock:
            self._fit(tokens, 0.0)

    def attempt(self) -> None:
        """Count one attempt. Raises BudgetExceeded when as many as allowed were made."""
        self.alive()
        with self._lock:
            if self.max_episodes is not None and self.episodes >= self.max_episodes:
                raise BudgetExceeded(f"all {self.max_episodes} attempts that are allowed were made")
            self.episodes += 1

    def unmade(self) -> None:
        """Take one attempt back: it was lost, and is no experience."""
        with self._lock:
            self.episodes -= 1

    def book(self, usage: Usage) -> None:
        """Count what something has cost."""
        with self._lock:
            self.spent += usage

    def pay(self, usage: Usage) -> None:
        """Count what something has cost that nobody asked leave for, wherever the limit is kept."""
        self.book(usage)

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
