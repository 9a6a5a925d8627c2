"""Text from outside as it is shown: what cannot be seen in it, or turns a line around, is named; how it is found and compared."""

from __future__ import annotations

import difflib
import functools
import re
import unicodedata
from collections.abc import Iterator

from agentevolve.memory.form import FILLERS
from agentevolve.protocols import AgentevolveError

ODD = re.compile(r"[^\x20-\x7e\n\t]")
UNSEEN = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
WORD = re.compile(r"[^\W_]+")
MOST_WORDS = 16
DIFFED = 20_000  # characters from which two texts are compared by lines: by words it would take seconds


def visible(text: str) -> str:
    """The text with what cannot be seen in it, or would turn it around, named: ⟨U+202E⟩."""
    return ODD.sub(lambda found: _named(found[0]), text)


@functools.lru_cache(maxsize=4_096)
def _named(sign: str) -> str:
    picked = "\ufe00" <= sign <= "\ufe0d" or "\U000e0100" <= sign <= "\U000e01ef"  # a variant that is no emoji's
    unseen = picked or sign in FILLERS or unicodedata.category(sign) in UNSEEN
    return f"⟨U+{ord(sign):04X}⟩" if unseen else sign


def words(text: str) -> str:
    """A full-text query for all words of the text. Raises AgentevolveError where there is none in it."""
    found = WORD.findall(text)[:MOST_WORDS]
    if not found:
        raise AgentevolveError("text: name a word to look for")
    return " ".join(f'"{word}"' for word in found)


def differences(before: str, after: str) -> list[tuple[str, str]]:
    """Two texts word by word, as parts that are in both ("same"), in the first alone ("gone") or in the second ("new")."""
    cut = re.compile(r"[^\n]*\n|[^\n]+") if len(before) + len(after) > DIFFED else re.compile(r"\s+|\w+|[^\w\s]")
    a, b = cut.findall(before), cut.findall(after)
    return list(_joined(a, b))


def _joined(a: list[str], b: list[str]) -> Iterator[tuple[str, str]]:
    for what, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if what == "equal":
            yield "same", "".join(a[i:j])
        else:
            yield from ((kind, text) for kind, text in (("gone", "".join(a[i:j])), ("new", "".join(b[k:m]))) if text)
