"""Models without weights: the random floor, and a script for tests, examples and the oracle."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

from agentevolve.models.tools import Tool, sample
from agentevolve.models.usage import tokens_of
from agentevolve.protocols import AgentevolveError, Environment, ModelError, Reply
from agentevolve.records import Message, Usage

Messages = Sequence[Message]
Choices = Sequence[str]


def at_random(environment: Environment, actions: Sequence[str], tools: Sequence[Tool], rng: random.Random) -> str | None:
    """An action that nobody thought about: one of the admissible ones, a tool called anyhow, what the world samples, or none."""
    if actions:
        return rng.choice(actions)
    if tools:
        return sample(tools, rng)
    draw = getattr(environment, "sample", None)
    return str(draw(rng)) if draw else None


class RandomModel:
    """Chooses uniformly among the admissible actions or tools: the floor every policy is measured against."""

    name = "random"
    native_tools = True  # it reads no text

    def complete(
        self,
        messages: Messages,
        *,
        choices: Choices = (),
        tools: Sequence[Tool] = (),
        temperature: float = 0.0,
        max_tokens: int = 1024,
        seed: int = 0,
    ) -> Reply:
        """One of `choices`, or a call of one of `tools`, drawn by `seed`. Raises AgentevolveError without either."""
        rng = random.Random(seed)
        if not choices and not tools:
            raise AgentevolveError("the model 'random' needs an environment that lists actions or tools, or can sample an action")
        return Reply(rng.choice(choices) if choices else sample(tools, rng), Usage(calls=1))

    def count(self, text: str) -> int:
        """About as many tokens as any model would see."""
        return tokens_of(text)

    def close(self) -> None:
        """Nothing to give back."""


class ScriptedModel:
    """A deterministic model for tests and examples: replies from a list, in order, or from a function of the call.

    `calls` keeps what it was asked: (messages, choices). It costs nothing.
    """

    name = "scripted"
    native_tools = False

    def __init__(self, replies: Sequence[str] | Callable[[Messages, Choices], str]) -> None:
        self.calls: list[tuple[tuple[Message, ...], tuple[str, ...]]] = []
        self._replies = replies
        self._lock = threading.Lock()

    def complete(
        self,
        messages: Messages,
        *,
        choices: Choices = (),
        tools: Sequence[Tool] = (),
        temperature: float = 0.0,
        max_tokens: int = 1024,
        seed: int = 0,
    ) -> Reply:
        """The next reply. Raises ModelError when the script is over."""
        with self._lock:
            turn = len(self.calls)
            self.calls.append((tuple(messages), tuple(choices)))
        text = self._replies(messages, choices) if callable(self._replies) else self._line(self._replies, turn)
        return Reply(text, Usage(calls=1))

    def _line(self, replies: Sequence[str], turn: int) -> str:
        if turn >= len(replies):
            raise ModelError(f"the script of {len(replies)} replies is over")
        return replies[turn]

    def count(self, text: str) -> int:
        """About as many tokens as any model would see."""
        return tokens_of(text)

    def close(self) -> None:
        """Nothing to give back."""
