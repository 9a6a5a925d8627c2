"""JSON schemas as tools have them here: with nothing referred to from outside."""

from __future__ import annotations

from typing import Any

DEEPEST = 40  # references within references: a schema that refers to itself never ends


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without "$defs", each reference replaced by what it refers to; one to nothing, or without end, is anything."""
    parts = schema.get("$defs")
    found = _inlined({key: value for key, value in schema.items() if key != "$defs"}, parts if isinstance(parts, dict) else {}, 0)
    return dict(found)


def _inlined(shape: Any, parts: dict[str, Any], depth: int) -> Any:
    if isinstance(shape, list):
        return [_inlined(one, parts, depth) for one in shape]
    if not isinstance(shape, dict):
        return shape
    if "$ref" in shape:
        rest = {key: value for key, value in shape.items() if key != "$ref"}
        part = parts.get(str(shape["$ref"]).rpartition("/")[2], {}) if depth < DEEPEST else {}
        return _inlined({**(part if isinstance(part, dict) else {}), **rest}, parts, depth + 1)
    return {key: _inlined(value, parts, depth) for key, value in shape.items()}
