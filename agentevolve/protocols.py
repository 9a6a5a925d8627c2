"""What a part must do. Anything with these methods is one: no base class, no registration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from agentevolve.records import NEAREST, Entry, Message, Ranking, Task, Usage


class AgentevolveError(Exception):
    """A user's mistake or an unusable outside part, as one clear line. The command line prints it and exits with code 2.

    `usage` is what was paid for nothing before it was raised.
    """

    usage: Usage = Usage()


class BudgetExceeded(AgentevolveError):
    """The next model call would pass the run's limit of tokens or dollars."""


class Stopped(AgentevolveError):
    """The user has asked for an end: nothing new is begun."""


class ModelError(RuntimeError):
    """A backend failed or answered something unusable: the attempt that asked is lost, the run is not.

    `status` is the HTTP status of a refused request, 0 without one; `usage` is what was paid all the same. `passing` says whether
    the same request may well succeed later.
    """

    def __init__(self, text: str, status: int = 0, usage: Usage | None = None, *, passing: bool = False) -> None:
        super().__init__(text)
        self.status, self.usage, self.passing = status, usage or Usage(), passing


class Step(NamedTuple):
    """Gymnasium's five: after `terminated` the task is over by its own rules, after `truncated` by a limit."""

    observation: str
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


@runtime_checkable
class Environment(Protocol):
    """A text world. One object plays one task at a time; the same task gives the same world in any process.

    `info["actions"]` lists the admissible actions where the world has them (absent or empty: free text).
    `info["score"]` is the score so far in [0, 1]; rewards are its differences, so they sum to the final score.
    A malformed action is answered with an observation, never an exception. An exception means that the world itself broke.
    `info["notes"]`, after reset, is the standing description of the game's goal, shown once to the agent.
    `info["tools"]`, after reset, are OpenAI function schemas without "$ref"; an action is then the JSON of a call,
    {"name": …, "arguments": {…}}, or plain text, which is said. `info["raw"]` is the world's own score, unscaled.
    A world that lists neither actions nor tools may have `sample(rng) -> str`, a well-formed action for the random arm.
    """

    def reset(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Start `task`; return its first observation and info."""

    def step(self, action: str) -> Step:
        """Take one action."""

    def oracle(self, task: Task) -> list[str]:
        """Actions that solve `task` from its start, for measuring the ceiling; never shown to an agent."""

    def close(self) -> None:
        """Give back what the world holds (a process, a file). Closing twice is allowed."""


class Reply(NamedTuple):
    """A model's answer and what it cost; what it thought before it; how it was asked: what held it, what was refused."""

    text: str
    usage: Usage
    thinking: str = ""
    asked: str = ""


class Model(Protocol):
    """A chat model."""

    name: str

    @property
    def native_tools(self) -> bool:
        """Whether tools are given through the backend's own interface, not as text in the conversation."""

    def complete(
        self,
        messages: Sequence[Message],
        *,
        choices: Sequence[str] = (),
        tools: Sequence[dict[str, Any]] = (),
        temperature: float = 0.0,
        max_tokens: int = 1024,
        seed: int = 0,
    ) -> Reply:
        """Answer `messages`, as far as the backend can be held to it: with `choices` by one of them, with `tools` by a call."""

    def count(self, text: str) -> int:
        """The tokens of `text`: by the model's own tokenizer where that is here, else about."""

    def close(self) -> None:
        """Give back what the model holds (a server). Closing twice is allowed."""


class Memory(Protocol):
    """A store of entries; the journal is the truth, the index a cache of it."""

    def add(self, entries: Sequence[Entry]) -> None:
        """Append entries; an id that is already there is left as it is."""

    def entries(self, as_of: int | None = None, kind: str | None = None, env: str | None = None) -> list[Entry]:
        """The entries that are there now, or as of a round, oldest first."""

    def recall(
        self,
        query: str,
        *,
        env: str,
        k: int,
        as_of: int | None = None,
        kind: str = "demo",
        skip: Callable[[Entry], bool] | None = None,
        ranking: Ranking = NEAREST,
    ) -> list[tuple[Entry, float]]:
        """The k entries of `env` and `kind` nearest to `query`, nearest first, with their cosine similarity.

        Those that `skip` says yes to are passed over.
        """

    def cost(self, *texts: str) -> Usage:
        """What embedding the texts, as a query or as keys, costs."""
