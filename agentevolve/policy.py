"""What acts: a model, perhaps an adapter, perhaps a memory, and how they are asked. Frozen; an update returns a new one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from agentevolve.records import Kind, PolicyStamp, Ranking, Record, Usage
from agentevolve.redact import secret, secret_in

SECRET = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)  # in the name of a header
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def _joined(addresses: Any) -> Any:
    """Several addresses as one text."""
    several = isinstance(addresses, list) and all(isinstance(one, str) for one in addresses)
    return ",".join(addresses) if several else addresses


# the address of the servers that answer, several as a list or with commas between
ApiBase = Annotated[str | None, BeforeValidator(_joined)]


def _three_demos() -> dict[Kind, int]:
    return {"demo": 3}


class Recall(Ranking):
    """What of memory is shown to the agent: how many entries of each kind, within `tokens` (the model's own, where known).

    `whole` kinds are shown with all their entries, oldest first; of `own` kinds the youngest that are about this very task;
    of `nearest` kinds those whose keys are nearest to the task's text. They are taken in this order while they fit, and
    shown with the nearest last. An attempt that does not fit is shortened in its middle.

    as_turns    earlier attempts are shown as the turns that they were, before the task; else, as all the rest is, as text
    when        the nearest are looked up at the "start", at "each" turn by what is seen, or when "stuck" in a state seen before
    shuffled    the control arm: as many `own` and `nearest` entries, drawn at random from those that would *not* be taken

    Which are the nearest is for the `Ranking` to say. The default, three demos that are near to the task and differ from each
    other, shown as turns, is what was measured to help (README).
    """

    whole: tuple[Kind, ...] = ()
    own: dict[Kind, Count] = Field(default_factory=dict)
    nearest: dict[Kind, Count] = Field(default_factory=_three_demos)
    tokens: Count = 2000
    difference: Share = 0.5
    as_turns: bool = True
    when: Literal["start", "each", "stuck"] = "start"
    shuffled: bool = False

    def by_nearness(self, nearest: dict[Kind, int]) -> Recall:
        """As it is, but so many of these kinds, by the cosine alone: as most papers recall."""
        return self.model_copy(update={"nearest": nearest, "difference": 0.0})


def _hidden(headers: dict[str, str]) -> dict[str, str]:
    """The headers; what is a secret by its name is hidden from now on."""
    for name, value in headers.items():
        if SECRET.search(name):
            secret(value.rpartition(" ")[2])
    return headers


class Price(Record):
    """USD a million tokens; `cached` is for those of the prompt that came from a prompt cache (none: as `input`)."""

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    cached: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    def of(self, usage: Usage) -> float:
        """What the prompt and completion tokens of `usage` cost, in USD."""
        fresh = usage.prompt_tokens - usage.cached_tokens
        cached = self.input if self.cached is None else self.cached
        return (fresh * self.input + usage.cached_tokens * cached + usage.completion_tokens * self.output) / 1e6


class Workers(Record):
    """Where attempts are made, and how many side by side; a number alone is that many threads.

    on       "threads" of this process, or "ray": the nodes of a Ray cluster, which see the run's folder and have this package
    address  HOST:PORT of the cluster's head, "auto" for the one that this machine belongs to; none: a cluster of this machine
             alone, for as long as the command
    """

    count: int = Field(default=4, gt=0)
    on: Literal["threads", "ray"] = "threads"
    address: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _with_cluster(self) -> Self:
        if self.address is not None and self.on != "ray":
            raise ValueError("address: is of a Ray cluster, and needs on=ray")
        return self

    @model_serializer(mode="wrap")
    def _as_number(self, whole: SerializerFunctionWrapHandler) -> Any:
        return self.count if self.on == "threads" else whole(self)


class ModelOptions(Record):
    """How a backend is called.

    timeout           seconds a try may take, from the request to the last byte of the answer
    tries             how often a call is sent at most, after failures that may pass
    pause             seconds before the second try, doubled for each further one (at most 60; `Retry-After` is obeyed up to that)
    max_tokens        the reply limit, thinking included
    reasoning_effort  as the provider names it: "low", "medium", "high", …
    headers, body     sent with each request besides what is sent anyway
    stream            whether the answer is streamed: for proxies that close a silent connection
    """

    timeout: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    tries: int = Field(default=5, ge=1, le=100)
    pause: float = Field(default=0.5, ge=0, le=60)
    max_tokens: int = Field(default=1024, gt=0)
    reasoning_effort: str | None = None
    headers: Annotated[dict[str, str], AfterValidator(_hidden)] = Field(default_factory=dict)
    body: dict[str, JsonValue] = Field(default_factory=dict)
    stream: bool = False


class Policy(Record):
    """A model and how it acts. `adapter` and `memory` are folders; `as_of` is the last round whose entries are recalled.

    `epsilon` is the probability, in [0, 1], that a step takes an admissible action uniformly at random instead of asking
    the model: exploration, as in ε-greedy. `show_actions` lists the admissible actions in the prompt; `instructions` follow
    the house rules in the system message; `options` say how the backend is called.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    model: str
    api_base: Annotated[ApiBase, AfterValidator(secret_in)] = None
    adapter: str | None = None
    memory: str | None = None
    as_of: int | None = None
    recall: Recall = Recall()
    temperature: float = Field(default=0.7, ge=0)
    epsilon: float = Field(default=0.0, ge=0, le=1)
    show_actions: bool = True
    instructions: str = ""
    options: ModelOptions = ModelOptions()
    threads: int | None = None
    round: int = 0

    def stamp(self) -> PolicyStamp:
        """What a trajectory says of the policy that made it; folders by their names, so that a run can be moved."""
        return PolicyStamp(
            model=self.model,
            adapter=Path(self.adapter).name if self.adapter else None,
            memory=self._memory() if self.memory else None,
            round=self.round,
            temperature=self.temperature,
            epsilon=self.epsilon,
            show_actions=self.show_actions,
            instructions=self.instructions,
        )

    def _memory(self) -> str:
        shown = "of all rounds" if self.as_of is None else f"as of round {self.as_of}"
        return f"shuffled {shown}" if self.recall.shuffled else shown

    def using(self, **changes: object) -> Policy:
        """The same policy with some fields changed, checked like a new one."""
        return Policy.model_validate(self.model_dump() | changes)
