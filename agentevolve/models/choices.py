"""Holding a model to a list of choices, and understanding what it chose where it could not be held."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any


def schema(choices: Sequence[str]) -> dict[str, Any]:
    """OpenAI's `response_format` for {"action": one of the choices}."""
    action = {"type": "string", "enum": list(choices)}
    shape = {"type": "object", "properties": {"action": action}, "required": ["action"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "action", "strict": True, "schema": shape}}


def pick(text: str, choices: Sequence[str]) -> str:
    """The choice that `text` means, or its first line when it means none."""
    if not choices or text in choices:
        return text
    said = _said(text)
    plain = {_fold(choice): choice for choice in choices}
    if said in choices or _fold(said) in plain:
        return said if said in choices else plain[_fold(said)]
    found = [choice for fold, choice in plain.items() if re.search(rf"(?<!\w){re.escape(fold)}(?!\w)", said.casefold())]
    widest = [choice for choice in found if not any(choice != other and choice in other for other in found)]
    return widest[0] if len(widest) == 1 else said.strip().split("\n")[0]


def _said(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return text.strip()
    return str(value["action"]) if isinstance(value, dict) and "action" in value else text.strip()


def _fold(text: str) -> str:
    return text.casefold().strip(" \t\n\"'`*.")
