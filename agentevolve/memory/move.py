"""Taking entries elsewhere: out of a memory into one file, and from such a file, or another memory, into a memory.

What comes from elsewhere is read line by line from its journal; an index that came along is never opened, the memory's own is
made from what was taken in. Entries that this user's key has signed are taken in as they are, any other only when the user says
so, and then signed anew. What is in quarantine stays where it is, and so do the user's notes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agentevolve.memory.folder import ABOUT, JOURNAL
from agentevolve.memory.ledger import read_entry
from agentevolve.memory.provenance import holds, line_of, vouches
from agentevolve.memory.store import EntryMemory, read_ledger
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry, Record
from agentevolve.whole import write_whole

FORMAT = 1
OPS = ("add", "again", "retire", "quarantine", "release", "annotate", "worth", "forget")
OPENING = {"kind": "memory", "format": FORMAT}


class Taken(Record):
    """What an import did: entries taken in, those that were there already, those left out as nobody vouches for them."""

    added: int
    known: int
    unsigned: int


def write_entries(memory: Path, path: Path, *, as_of: int | None = None, kind: str | None = None, env: str | None = None) -> int:
    """Write the entries of the memory in the folder `memory`, or some of them, into the file `path`; how many.

    Raises AgentevolveError if the file is there already or cannot be written.
    """
    if path.exists():
        raise AgentevolveError(f"{path}: exists already; name a new file")
    ledger = read_ledger(memory)
    found = ledger.entries(as_of, kind, env)
    lines = [OPENING, *(line_of(said) for entry in found for said in ledger.said(entry.id, as_of))]
    write_whole(path, "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines))
    return len(found)


def take_in(memory: EntryMemory, path: Path, *, vouched: bool = False) -> Taken:
    """Add the entries of the exported file, or of the memory folder, at `path`; with `vouched` also those that nobody has signed.

    Raises AgentevolveError, naming file and line, for what is neither; then nothing is added.
    """
    lines = _lines(path, vouched)
    chosen = [entry for entry, signed in lines if signed or vouched]
    before = len(memory.entries())
    memory.add(chosen)
    added = len(memory.entries()) - before
    return Taken(added=added, known=len(chosen) - added, unsigned=len(lines) - len(chosen))


def _lines(path: Path, vouched: bool) -> list[tuple[Entry, bool]]:
    """The entries at `path`, each with whether this user's key has signed it.

    Not those that were retired or forgotten there, or are in quarantine; only one that was `vouched` for, or signed, lets out.
    """
    folder = path.is_dir()
    source = path / JOURNAL if folder else path
    if folder and not (path / ABOUT).is_file():
        raise AgentevolveError(f"{path}: not a memory: it has no {ABOUT}")
    try:
        texts = source.read_bytes().split(b"\n")[: -1 if folder else None]
    except OSError as error:
        raise AgentevolveError(f"{source}: cannot read: {error.strerror or error}") from None
    found: dict[str, tuple[Entry, bool]] = {}
    gone: set[str] = set()
    held: set[str] = set()  # in quarantine
    same: dict[str, str] = {}  # by the id of what says the same again, the id of the entry
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        line = _line(text, f"{source}:{number}", opening=number == 1 and not folder)
        match line:
            case {"op": "add" | "again", "entry": dict()}:
                entry = read_entry(line["entry"], f"{source}:{number}")
                same.setdefault(entry.id, str(line.get("id", entry.id)))
                found.setdefault(entry.id, (entry, holds(line)))
            case {"op": "retire" | "forget", "id": str() as id}:
                gone.add(id)
            case {"op": "quarantine", "id": str() as id}:
                held.add(id)
            case {"op": "release", "id": str() as id} if vouched or vouches(line):
                held.discard(id)
    return [one for id, one in found.items() if same[id] not in gone | held]


def _line(text: bytes, where: str, *, opening: bool) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AgentevolveError(f"{where}: not an exported memory: {str(error)[:100]}") from None
    if opening and line != OPENING:
        given = line.get("format") if isinstance(line, dict) and line.get("kind") == "memory" else None
        why = (
            f"format {given!r} is not known; this version reads {FORMAT}"
            if given
            else f"its first line is not {json.dumps(OPENING)}"
        )
        raise AgentevolveError(f"{where}: not an exported memory: {why}")
    if not isinstance(line, dict) or not (opening or line.get("op") in OPS):
        raise AgentevolveError(f"{where}: not an exported memory: expected a line that adds an entry")
    return line
