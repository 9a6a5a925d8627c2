"""Values as plain data, in JSON: what may pass between a process that runs unread code and one that judges it."""

from __future__ import annotations

import itertools
import re
import reprlib
from collections.abc import Callable
from typing import Any

ITEMS = 100_000  # taken from what is iterated over
SHOWN = 300  # characters of what is shown
ELEMENTS: dict[str, Callable[..., Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "iterator": iter}


class Other:
    """Stands for a value that is no data: equal to nothing."""

    def __repr__(self) -> str:
        return "an object"


def packed(value: Any) -> Any:
    """The value as JSON: what is no JSON by itself as [word, …]."""
    if value is None or isinstance(value, bool | str | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else ["int", hex(value)]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, bytes | bytearray):
        return ["bytes", value.hex()]
    if isinstance(value, dict):
        return ["dict", [[packed(key), packed(one)] for key, one in value.items()]]
    if not hasattr(value, "__iter__"):
        return ["other"]
    word = next((word for word, kind in ELEMENTS.items() if kind is not iter and isinstance(value, kind)), "iterator")
    return [word, [packed(one) for one in itertools.islice(value, ITEMS)]]


def unpacked(value: Any) -> Any:
    """The value again. Raises ValueError, TypeError, LookupError or RecursionError on what `packed` does not make."""
    if not isinstance(value, list):
        return value
    word, *rest = value
    if word == "dict":
        return {unpacked(key): unpacked(one) for key, one in rest[0]}
    if word in ELEMENTS:
        return ELEMENTS[word]([unpacked(one) for one in rest[0]])
    makers = {"int": lambda text: int(text, 16), "complex": complex, "bytes": bytes.fromhex, "other": Other}
    return makers[word](*rest)


_short = reprlib.Repr()
_short.maxlist = _short.maxtuple = _short.maxdict = _short.maxset = _short.maxfrozenset = 20
_short.maxstring = _short.maxother = _short.maxlong = 200


def shown(values: Any) -> str:
    """The values for a reader."""
    try:
        return line(", ".join(map(_short.repr, values)))
    except (ValueError, RecursionError):
        return "something long"


def line(text: str) -> str:
    """The text as one short line, without addresses in memory."""
    text = "".join(char if char.isprintable() else " " for char in text[: 2 * SHOWN])
    return " ".join(re.sub(r"0x[0-9a-fA-F]{6,}", "0x…", text).split())[:SHOWN]
