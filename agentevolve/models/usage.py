"""What a call cost: the backend's own count where it is believable, else an estimate that says so; and its price."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agentevolve.policy import Price
from agentevolve.records import Usage

CHARACTERS = 4  # a token, about
SLACK = 10_000  # tokens that a backend may add to a prompt: its own instructions, a template's


def tokens_of(text: str) -> int:
    """The tokens of `text`, about: a quarter of its characters, rounded up."""
    return -(-len(text) // CHARACTERS)


def size(messages: Sequence[Mapping[str, Any]], beside: object = ()) -> int:
    """The characters that a backend is sent: texts, calls, and what is given `beside` them."""
    texts = [message.get("content") or json.dumps(message.get("tool_calls"), ensure_ascii=False) for message in messages]
    return sum(map(len, texts)) + (len(json.dumps(beside, ensure_ascii=False)) if beside else 0)


def estimated(characters: int, said: str = "") -> Usage:
    """The usage of a call that nobody counted: a token for each four characters, rounded up."""
    prompt, completion = -(-characters // CHARACTERS), tokens_of(said)
    return Usage(calls=1, prompt_tokens=prompt, completion_tokens=completion, estimated=prompt + completion)


def counted(usage: Any, characters: int, said: str) -> Usage:
    """The backend's own count; an estimate where there is none, or one that cannot be.

    It cannot be when it is no whole number, below zero, or of more tokens than were characters sent and received, and then some.
    """
    prompt, completion = _whole(getattr(usage, "prompt_tokens", None)), _whole(getattr(usage, "completion_tokens", None))
    if prompt is None or completion is None or (prompt == 0 and completion == 0):
        return estimated(characters, said)
    if prompt > characters + SLACK or completion > 10 * (len(said) + SLACK):
        return estimated(characters, said)
    cached = _whole(getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", None)) or 0
    return Usage(calls=1, prompt_tokens=prompt, cached_tokens=min(cached, prompt), completion_tokens=completion)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def known_price(info: Mapping[str, Any]) -> Price | None:
    """The price in LiteLLM's entry of a model, in USD a million tokens; None where it has none."""
    sent, said = info.get("input_cost_per_token"), info.get("output_cost_per_token")
    cached = info.get("cache_read_input_token_cost")
    if not sent and not said:
        return None
    return Price(input=(sent or 0) * 1e6, output=(said or 0) * 1e6, cached=None if cached is None else cached * 1e6)
