"""Secrets are hidden in what reaches the disk: keys from the environment or an option, passwords in addresses, and their like."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import unquote, urlsplit

HIDDEN = "[secret]"
SHORTEST = 8  # characters of a secret
NAMES = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_CREDENTIALS")  # how an environment variable's name ends that holds one
# words that a journal is made of: no secret, even where a variable holds one of them
WORDS = frozenset({"trajectory", "terminated", "truncated", "assistant", "reflection", "workflow"})
NAMED = re.compile(r"(?:api|access|secret|auth)[_-]?(?:key|token)$|secret$|password$|credentials$|authorization$", re.IGNORECASE)
VALUE = r"""[^\s"'\\&,;}]"""
# each form with a mark without which no text has it, so that a clean text costs a few searches for a word
FORMS = tuple(
    (mark, re.compile(pattern, re.IGNORECASE))
    for mark, pattern in (
        ("://", r"""(://[^\s/:@"']{0,200}:)[^\s/"']{1,500}(?=@)"""),
        ("authorization", rf"""(authorization\W{{1,6}}(?:(?:bearer|basic|token)\s+)?){VALUE}{{{SHORTEST},}}"""),
        ("bearer", rf"""(\bbearer\s+)(?={VALUE}*\d){VALUE}{{16,}}"""),
        ("key", rf"""((?:api|access|secret)[_-]?key\W{{0,2}}\s*[:=]\W{{0,3}}){VALUE}{{{SHORTEST},}}"""),
        ("sk-", r"""(\b)sk-(?=[\w-]{0,200}\d)[\w-]{16,}"""),
    )
)
_given: set[str] = set()
_seen: tuple[int, tuple[str, ...]] = (-1, ())


def secret(value: str) -> None:
    """Hide this value from now on, for as long as the process lives."""
    global _seen
    _given.add(value)
    _seen = (-1, ())


def secret_in(address: str | None) -> str | None:
    """The address, whose password, if it has one, is hidden from now on."""
    if address and "@" in address and (password := urlsplit(address).password):
        secret(password)
        secret(unquote(password))
    return address


def redact(text: str) -> str:
    """The text without secrets."""
    for value in _values():
        if value in text:
            text = text.replace(value, HIDDEN)
    low = text.lower()
    for mark, form in FORMS:
        if mark in low:
            text = form.sub(rf"\1{HIDDEN}", text)
    return text


def redacted(value: Any) -> Any:
    """The JSON value with every text in it redacted; a text whose key is the name of a secret is hidden whole."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(key): HIDDEN if _holds_secret(key, one) else redacted(one) for key, one in value.items()}
    return [redacted(one) for one in value] if isinstance(value, list | tuple) else value


def _holds_secret(key: str, value: Any) -> bool:
    return isinstance(value, str) and len(value) >= SHORTEST and bool(NAMED.search(key))


def _values() -> tuple[str, ...]:
    """The secrets that are known by value, the longest first; the environment is read again when its size has changed."""
    global _seen
    if _seen[0] != len(os.environ):
        found = {value for name, value in os.environ.items() if name.upper().endswith(NAMES)} | _given
        kept = [value for value in found if len(value) >= SHORTEST and value not in WORDS]
        _seen = (len(os.environ), tuple(sorted(kept, key=len, reverse=True)))
    return _seen[1]
