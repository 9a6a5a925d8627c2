"""Holding a model to a list of choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentevolve.models.reading import read_reply


def schema(choices: Sequence[str]) -> dict[str, Any]:
    """OpenAI's `response_format` for {"action": one of the choices}."""
    action = {"type": "string", "enum": list(choices)}
    shape = {"type": "object", "properties": {"action": action}, "required": ["action"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "action", "strict": True, "schema": shape}}


def pick(text: str, choices: Sequence[str]) -> str:
    """The choice that `text` means, or its first line when it means none; "" when it cannot be read."""
    return read_reply({"content": text}, choices=choices).text
