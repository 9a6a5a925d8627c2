"""Engines: what serves a base whose weights are here, perhaps with an adapter, to the one LiteLLM call of the house.

- `llama_cpp`: a GGUF inside this process; the quickest on a CPU (`bases`: read once for all who act with it)
- `transformers`: a transformers folder inside this process; needs nothing but the training's own packages, and is the slowest
- `vllm`: a vLLM server, a child of this process or one that the user runs; for GPUs

An engine is one policy's: adapters come and go between phases, or between the requests of two phases at once, never under one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from agentevolve.local.adapter import INFO, read_adapter
from agentevolve.local.canary import check


class Engine(Protocol):
    """A base that answers, with one adapter or none. `slots` requests are answered side by side."""

    slots: int

    @property
    def route(self) -> dict[str, Any]:
        """What LiteLLM is called with: `model`, and where there is a server `api_base` and `api_key`."""

    def held(self, choices: Sequence[str], form: dict[str, Any] | None, slot: int) -> tuple[str, dict[str, Any]]:
        """What holds an answer to `choices`, or to the JSON schema `form`, in a request; the way's name first."""

    def call(self) -> AbstractContextManager[None]:
        """What each request is sent within."""

    def count(self, text: str) -> int:
        """The tokens of `text`, as the model reads it within a conversation."""

    def chances(self, prompt: Sequence[int], tokens: Sequence[int], scale: float) -> Mapping[int, float]:
        """The log-probabilities of `tokens` after the tokens `prompt`, with the adapter's change to the weights times `scale`.

        `scale` is 0 or 1. One that is very unlikely may be left out, others may be told of besides.
        """

    def close(self) -> None:
        """Give back what it holds, after the requests in flight. Closing twice is allowed."""


def prove(engine: Engine, adapter: Path) -> None:
    """Raise AgentevolveError if the engine answers with other weights than those of the adapter (its file), where it is ours."""
    if (adapter.parent / INFO).is_file():
        check(read_adapter(adapter.parent).canary, engine.chances, adapter.parent)
