"""What is odd about a memory's entries: found by pattern, for a person to look at. It proves nothing; signatures do."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from agentevolve.local.rows import MARKERS
from agentevolve.memory.ledger import Ledger
from agentevolve.models.tools import read
from agentevolve.records import Entry, Record
from agentevolve.redact import redact

LONGEST = 4_000  # characters of what a reflector writes
OURS = ("reflection", "insight", "workflow", "sheet")  # kinds whose words are a model's own, about what it lived through
ORDERS = re.compile(
    r"""\b(?:ignore|disregard|forget|override)\b[^.\n]{0,40}\b(?:instruction|prompt|rule|above|previous|earlier)s?\b
      |\b(?:system|developer)\s+(?:prompt|message)\b
      |\byou\s+(?:are|must)\s+now\b
      |\bfrom\s+now\s+on\b[^.\n]{0,40}\b(?:always|never|must|you)\b
      |\bdo\s+not\s+(?:tell|mention|reveal|report)\b
      |\b(?:reveal|print|send|exfiltrate|upload|forward)\b[^.\n]{0,40}\b(?:secret|password|key|token|credential|prompt|memory)s?\b
      |\bnew\s+instructions?\b|\bjailbreak\b|\bdeveloper\s+mode\b
      |<\s*/?\s*(?:system|assistant|user|instructions?)\s*>
      |^\s*(?:system|assistant|user)\s*:""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
ADDRESSES = re.compile(r"\bhttps?://\S+|\b[\w.+-]+@[\w-]+\.[\w.]+\b", re.IGNORECASE)
CODED = re.compile(r"[A-Za-z0-9+/]{80,}={0,2}|(?:[0-9a-f]{2}){60,}", re.IGNORECASE)


class Finding(Record):
    """What is odd about an entry, and where in it."""

    id: str
    kind: str
    what: str
    where: str


def audit(ledger: Ledger) -> list[Finding]:
    """What is odd about the entries that are there, the ones set aside first."""
    found = [
        Finding(id=one.id, kind=one.kind, what="not signed by this user's key: set aside", where="") for one in ledger.aside()
    ]
    for entry in (*ledger.aside(), *ledger.entries()):
        found += [Finding(id=entry.id, kind=entry.kind, what=what, where=where) for what, where in oddities(entry)]
    return found


def oddities(entry: Entry) -> Iterator[tuple[str, str]]:
    """What is odd about one entry: (what, the text around it)."""
    for text in _texts(entry):
        yield from _odd(text)
    if entry.kind in OURS:
        if len(entry.text) > LONGEST:
            yield f"longer than {LONGEST:,} characters", ""
        if any(read(line) for line in entry.text.splitlines()):
            yield "holds a tool call", ""
        if not entry.sources:
            yield "says of no attempt that it came from it", ""


def _texts(entry: Entry) -> Iterable[str]:
    """What of the entry may be shown, each text once."""
    lived = entry.lived
    shown = [lived.prompt, *(text for turn in lived.turns for text in (turn.action, turn.observation))] if lived else []
    return dict.fromkeys([entry.text, *shown])


def _odd(text: str) -> Iterator[tuple[str, str]]:
    for what, pattern in (
        ("reads like an order", ORDERS),
        ("a chat marker", MARKERS),
        ("an address", ADDRESSES),
        ("coded text", CODED),
    ):
        if found := pattern.search(text):
            yield what, _around(text, found.start())
    odd = next((place for place, sign in enumerate(text) if _invisible(sign)), None)
    if odd is not None:
        yield f"an invisible character (U+{ord(text[odd]):04X})", _around(text, odd)
    if redact(text) != text:
        yield "a secret", ""


def _invisible(sign: str) -> bool:
    return unicodedata.category(sign) in ("Cc", "Cf", "Co", "Cs") and sign not in "\n\t\r"


def _around(text: str, place: int) -> str:
    return " ".join(text[max(0, place - 20) : place + 40].split())
