"""What is odd about a memory's entries: found by pattern, for a person to look at. It proves nothing; signatures do."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from agentevolve.memory.form import OURS, faults, poses, scripts_of
from agentevolve.memory.ledger import Ledger
from agentevolve.records import Entry, Record
from agentevolve.redact import redact

ORDERS = re.compile(
    r"""\b(?:ignore|disregard|forget|override)\b[^.\n]{0,40}\b(?:instruction|prompt|rule|above|previous|earlier)s?\b
      |\b(?:system|developer)\s+(?:prompt|message)\b
      |\byou\s+(?:are|must)\s+now\b
      |\bfrom\s+now\s+on\b[^.\n]{0,40}\b(?:always|never|must|you)\b
      |\bdo\s+not\s+(?:tell|mention|reveal|report)\b
      |\b(?:reveal|print|send|exfiltrate|upload|forward)\b[^.\n]{0,40}\b(?:secret|password|key|token|credential|prompt|memory)s?\b
      |\bnew\s+instructions?\b|\bjailbreak\b|\bdeveloper\s+mode\b""",
    re.IGNORECASE | re.VERBOSE,
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
    """What is odd about the entries that are there, the ones set aside or in quarantine first."""
    found = [
        Finding(id=one.id, kind=one.kind, what="not signed by this user's key: set aside", where="") for one in ledger.aside()
    ]
    for one in ledger.all():
        if ledger.state(one.id) == "quarantined" and (said := ledger.quarantined(one.id)):
            found.append(Finding(id=one.id, kind=one.kind, what=f"in quarantine since round {said[0]}", where=said[1]))
    held = ledger.entries()
    scripts = {env: scripts_of(_seen(one for one in held if one.env == env)) for env in {one.env for one in held}}
    for entry in (*ledger.aside(), *held):
        told = oddities(entry, scripts.get(entry.env, frozenset()))
        found += [Finding(id=entry.id, kind=entry.kind, what=what, where=where) for what, where in told]
    return found


def oddities(entry: Entry, scripts: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """What is odd about one entry of a world that is written in these scripts: (what, the text around it)."""
    for text in _texts(entry):
        ours = entry.kind in OURS and text == entry.text
        odd = faults(entry.kind, text, scripts) if ours else poses(text)
        yield from ((what, _around(text, place)) for what, place in (*odd, *_odd(text)))
    if entry.kind in OURS and not entry.sources:
        yield "says of no attempt that it came from it", ""


def _texts(entry: Entry) -> Iterable[str]:
    """What of the entry may be shown, each text once."""
    lived = entry.lived
    shown = [lived.prompt, *(text for turn in lived.turns for text in (turn.action, turn.observation))] if lived else []
    return dict.fromkeys([entry.text, *shown])


def _seen(entries: Iterable[Entry]) -> Iterator[str]:
    """What was seen of the world in these entries: not what a model said of it."""
    for one in entries:
        yield from (text for text in (one.key, *_texts(one)) if one.kind not in OURS or (one.task and text == one.key))


def _odd(text: str) -> Iterator[tuple[str, int]]:
    for what, pattern in (("reads like an order", ORDERS), ("an address", ADDRESSES), ("coded text", CODED)):
        if found := pattern.search(text):
            yield what, found.start()
    if redact(text) != text:
        yield "a secret", 0


def _around(text: str, place: int) -> str:
    return " ".join(text[max(0, place - 20) : place + 40].split())
