"""JSON schemas as tools have them here: with nothing referred to from outside."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

MOST = 20_000  # parts of a schema whose references are replaced: a few that refer to each other twice are millions


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without "$defs", each reference replaced by what it refers to; one to nothing, or to itself, is anything.

    Raises ValueError for one that has more than `MOST` parts then.
    """
    parts = schema.get("$defs")
    whole = {key: value for key, value in schema.items() if key != "$defs"}
    return dict(_inlined(whole, parts if isinstance(parts, dict) else {}, (), itertools.count()))


def _inlined(shape: Any, parts: dict[str, Any], within: tuple[str, ...], number: Iterator[int]) -> Any:
    if next(number) > MOST:
        raise ValueError(f"a schema of more than {MOST:,} parts")
    if isinstance(shape, list):
        return [_inlined(one, parts, within, number) for one in shape]
    if not isinstance(shape, dict):
        return shape
    if "$ref" in shape:
        rest, name = {key: value for key, value in shape.items() if key != "$ref"}, str(shape["$ref"]).rpartition("/")[2]
        part = {} if name in within else parts.get(name)
        return _inlined({**(part if isinstance(part, dict) else {}), **rest}, parts, (*within, name), number)
    return {key: _inlined(value, parts, within, number) for key, value in shape.items()}
