"""What a memory's journal says: every entry ever added and the round at which it was retired. Needs no index and no model."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry
from agentevolve.run.journal import Journal

Shelf = tuple[str, str]  # (env, kind): what one index collection holds


def key_id(key: str) -> str:
    """The id under which a retrieval key is indexed: entries that share a key share it."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Ledger:
    """The entries of the journal at `path`, in the order they were added. Safe to use from several threads of one process.

    As of round r an entry is there if it was added at a round <= r and not retired at a round <= r.
    Raises AgentevolveError naming file and line when the journal is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._retired: dict[str, int] = {}
        self._shelves: dict[Shelf, dict[str, list[Entry]]] = {}
        for number, line in enumerate(self._journal.read(), 1):
            self._replay(line, f"{path}:{number}")

    def add(self, entries: Sequence[Entry]) -> list[Entry]:
        """Append the entries whose id is not there yet; return those. They are on disk when this returns."""
        with self._lock:
            new: dict[str, Entry] = {}
            for entry in entries:
                if entry.id not in self._entries:
                    new.setdefault(entry.id, entry)
            if new:
                self._journal.append(*({"op": "add", "entry": entry.model_dump()} for entry in new.values()))
            for entry in new.values():
                self._keep(entry)
            return list(new.values())

    def retire(self, entry_id: str, round: int, why: str) -> None:
        """From `round` on the entry is no longer recalled. The first retirement of an entry stands."""
        with self._lock:
            if entry_id not in self._entries:
                raise AgentevolveError(f"{self._journal.path}: cannot retire {entry_id!r}: no such entry ({self.size} are known)")
            if entry_id not in self._retired:
                self._journal.append({"op": "retire", "id": entry_id, "round": round, "why": why})
                self._retired[entry_id] = round

    def entries(self, as_of: int | None = None, kind: str | None = None, env: str | None = None) -> list[Entry]:
        """The entries that are there now, or were as of a round, oldest first."""
        with self._lock:
            return [
                entry
                for entry in self._entries.values()
                if kind in (None, entry.kind) and env in (None, entry.env) and self.present(entry, as_of)
            ]

    def get(self, entry_id: str) -> Entry | None:
        """The entry of that id, retired or not."""
        return self._entries.get(entry_id)

    def retired(self, entry_id: str) -> int | None:
        """The round at which the entry was retired, if it was."""
        return self._retired.get(entry_id)

    def present(self, entry: Entry, as_of: int | None = None) -> bool:
        """Whether the entry is there, now or as of a round."""
        retired = self._retired.get(entry.id)
        if as_of is None:
            return retired is None
        return entry.round <= as_of and (retired is None or retired > as_of)

    @property
    def size(self) -> int:
        """How many entries were ever added."""
        return len(self._entries)

    def shelves(self) -> dict[Shelf, dict[str, str]]:
        """For each (env, kind) the distinct keys of all entries, retired ones too: {key id: key}."""
        with self._lock:
            return {shelf: {id: held[0].key for id, held in keys.items()} for shelf, keys in self._shelves.items()}

    def under(self, shelf: Shelf, id: str) -> list[Entry]:
        """The entries of `shelf` whose key has that key id, retired ones too."""
        with self._lock:
            return list(self._shelves.get(shelf, {}).get(id, ()))

    def stats(self) -> dict[str, Any]:
        """Counts of the entries that are there now, by kind, env and round; and how many were retired."""
        present = self.entries()
        return {
            "entries": len(present),
            "retired": len(self._retired),
            "by_kind": dict(sorted(Counter(entry.kind for entry in present).items())),
            "by_env": dict(sorted(Counter(entry.env for entry in present).items())),
            "by_round": dict(sorted(Counter(entry.round for entry in present).items())),
        }

    def _keep(self, entry: Entry) -> None:
        self._entries[entry.id] = entry
        self._shelves.setdefault((entry.env, entry.kind), {}).setdefault(key_id(entry.key), []).append(entry)

    def _replay(self, line: dict[str, Any], where: str) -> None:
        match line:
            case {"op": "add", "entry": dict() as fields}:
                entry = _entry(fields, where)
                if entry.id not in self._entries:
                    self._keep(entry)
            case {"op": "retire", "id": str() as entry_id, "round": int() as round} if entry_id in self._entries:
                self._retired.setdefault(entry_id, round)
            case _:
                raise AgentevolveError(f'{where}: not a line of a memory: expected "add" of an entry or "retire" of a known id')


def _entry(fields: dict[str, Any], where: str) -> Entry:
    try:
        return Entry.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise AgentevolveError(f"{where}: not an entry: {field}: {first['msg']}") from None
