"""Holding a model to a list of choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def schema(choices: Sequence[str]) -> dict[str, Any]:
    """OpenAI's `response_format` for {"action": one of the choices}."""
    action = {"type": "string", "enum": list(choices)}
    shape = {"type": "object", "properties": {"action": action}, "required": ["action"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "action", "strict": True, "schema": shape}}
