"""What a memory's journal says: every entry ever added and the round at which it was retired. Needs no index and no model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from agentevolve.memory.keys import Shelved, distinctive, key_id
from agentevolve.memory.provenance import hidden, holds, signed_line, vouched_line, vouches
from agentevolve.memory.seals import seal, sealed
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry
from agentevolve.run.journal import Journal

FORM = 2  # of what is written down at a clean end
NOTE, WHY = 2_000, 500  # characters of a user's note, and of a reason
FEW = 20  # lines are few where they are less than one in so many
Shelf = tuple[str, str]  # (env, kind): what one index collection holds


class Ledger:
    """The entries of the journal at `path`, in the order they were added. Safe to use from several threads of one process.

    As of round r an entry is there if it was added at a round <= r, not retired at a round <= r, and not in quarantine then. A
    text of one env and kind is kept once: what says the same again becomes a further key and further sources of the entry that
    is there. What was forgotten does not come back; what this user's key has not signed is set aside.
    Raises AgentevolveError naming file and line when the journal is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)
        self._lock = threading.RLock()
        self._entries: dict[str, Held] = {}
        self._retired: dict[str, tuple[int, str]] = {}  # the round, and why
        self._quarantine: dict[str, list[tuple[int, str | None]]] = {}  # from which rounds on, and why; None: no longer
        self._notes: dict[str, str] = {}  # the user's own words on an entry: shown to the user alone
        self._kept: dict[str, str] = {}  # the id of what said the same again: the id of the entry
        self._forgotten: set[str] = set()
        self._gains: dict[str, list[tuple[int, float]]] = {}
        self._aside: dict[str, Entry] = {}  # not signed by this user: never recalled
        self._again: dict[str, list[Held]] = {}  # the id of an entry: what said the same again
        self._texts: dict[str, list[str]] | None = None  # what is told: the ids of entries; made when it is first asked for
        self._shelves: dict[Shelf, Shelved[Held]] = {}
        self._size = self._sealed = 0  # bytes of lines that were read or written here, and of those that were vouched for
        self._digest = hashlib.sha256()  # of the former
        self._read(Lines(path, self._journal.whole()))

    def add(self, entries: Sequence[Entry]) -> dict[Shelf, dict[str, str] | None]:
        """Append the entries whose id is not there yet; they are on disk when this returns.

        Returned is what of their keys is to be indexed, {id: text} by shelf; None: all keys of the shelf anew.
        """
        with self._lock:
            made: dict[str, tuple[Entry, str]] = {}  # by id: the entry, and the id of one that says the same
            said: dict[str, str] = {}
            lines: list[dict[str, Any]] = []
            for fields in map(hidden, entries):
                entry = Entry.model_validate(fields)
                if entry.id not in made and not self.used(entry.id):
                    told = _told(entry)
                    kept = (self._teller(told) or said.get(told, "")) if entry.sources else ""
                    made[entry.id] = entry, kept
                    lines.append(signed_line(fields, kept))
                    said.setdefault(told, entry.id)
            starts = self._write(*lines)
            new: dict[Shelf, dict[str, str] | None] = {}
            for (entry, kept), start in zip(made.values(), starts, strict=True):
                shelf, anew = (entry.env, entry.kind), self._keep(Held.of(entry, start), kept)
                keys = new.setdefault(shelf, {})
                if anew or keys is None:
                    new[shelf] = None
                else:
                    text = self._shelves[shelf].text(entry.key)
                    keys[key_id(text)] = text
            return new

    def retire(self, entry_id: str, round: int, why: str) -> None:
        """From `round` on the entry is no longer recalled. The first retirement of an entry stands."""
        with self._lock:
            entry_id = self._known(entry_id, "retire")
            if entry_id and entry_id not in self._retired:
                self._write({"op": "retire", "id": entry_id, "round": round, "why": why})
                self._retire(entry_id, round, why)

    def quarantine(self, entry_id: str, round: int, why: str) -> None:
        """From `round` on, until it is released, the entry is not recalled, nor what says the same again."""
        if len(why) > WHY:
            raise AgentevolveError(f"{self._journal.path}: cannot quarantine {entry_id!r}: why: longer than {WHY} characters")
        with self._lock:
            entry_id = self._known(entry_id, "quarantine")
            if entry_id and self.present(self._entries[entry_id]):
                self._say({"op": "quarantine", "id": entry_id, "round": self._after(entry_id, round), "why": why})

    def release(self, entry_id: str, round: int) -> None:
        """From `round` on the entry is no longer in quarantine."""
        with self._lock:
            entry_id = self._known(entry_id, "release")
            if entry_id and self.quarantined(entry_id):
                self._say({"op": "release", "id": entry_id, "round": self._after(entry_id, round)})

    def annotate(self, entry_id: str, text: str) -> None:
        """Keep the user's own words on an entry, in the place of those before; empty: none. They are never recalled.

        Raises AgentevolveError for an entry that is not known, and for more than NOTE characters.
        """
        if len(text) > NOTE:
            raise AgentevolveError(
                f"{self._journal.path}: cannot annotate {entry_id!r}: a note is longer than {NOTE:,} characters"
            )
        with self._lock:
            entry_id = self._known(entry_id, "annotate")
            if entry_id and text != self.annotation(entry_id):
                self._say({"op": "annotate", "id": entry_id, "text": text})

    def _known(self, entry_id: str, what: str) -> str:
        """The id of the entry that is meant, empty for one that was forgotten."""
        entry_id = self._kept.get(entry_id, entry_id)
        if entry_id in self._entries or entry_id in self._forgotten:
            return entry_id if entry_id in self._entries else ""
        raise AgentevolveError(f"{self._journal.path}: cannot {what} {entry_id!r}: no such entry ({self.size} are known)")

    def _after(self, entry_id: str, round: int) -> int:
        """The round, but none before what was last said of the quarantine of that entry."""
        return max([round, *(at for at, _ in self._quarantine.get(entry_id, ()))])

    def _say(self, line: dict[str, Any]) -> None:
        """Write down and take in a line about an entry."""
        line = vouched_line(line)
        self._write(line)
        self._hear(line)

    def _hear(self, line: dict[str, Any]) -> None:
        """Take in a line about an entry; one that lets something be seen or recalled counts only if this user has signed it."""
        match line:
            case {"op": "quarantine", "id": id, "round": round, "why": why}:
                self._quarantine.setdefault(id, []).append((round, why))
            case {"op": "release", "id": id, "round": round} if vouches(line):
                self._quarantine.setdefault(id, []).append((round, None))
            case {"op": "annotate", "id": id, "text": text} if vouches(line):
                self._notes[id] = text

    def entries(self, as_of: int | None = None, kind: str | None = None, env: str | None = None) -> list[Entry]:
        """The entries that are there now, or were as of a round, oldest first."""
        with self._lock:
            return [self.seen(held.entry, as_of) for held in self._held(as_of, kind, env)]

    def get(self, entry_id: str) -> Entry | None:
        """The entry of that id, retired or not, with all its sources; also by the id of what said the same again."""
        held = self._entries.get(self._kept.get(entry_id, entry_id))
        return self.seen(held.entry) if held else None

    def used(self, entry_id: str) -> bool:
        """Whether there was ever an entry of that id, be it one that was forgotten: none can be added under it."""
        with self._lock:
            return any(entry_id in known for known in (self._entries, self._kept, self._forgotten))

    def said(self, entry_id: str, as_of: int | None = None) -> list[Entry]:
        """The entry as it was added, and what said the same again, as of a round."""
        with self._lock:
            again = [one.entry for one in self._again.get(entry_id, ()) if as_of is None or one.round <= as_of]
            return [self._entries[entry_id].entry, *again]

    def seen(self, entry: Entry, as_of: int | None = None) -> Entry:
        """The entry with all its sources, those of what said the same again too, as of a round."""
        _, *again = self.said(entry.id, as_of)
        if not again:
            return entry
        sources = dict.fromkeys([*entry.sources, *(source for one in again for source in one.sources)])
        return entry.model_copy(update={"sources": tuple(sources)})

    def note(self, gains: Mapping[str, float], round: int) -> None:
        """Write down what entries were worth as of `round`: the gain of each, in [-1, 1]."""
        with self._lock:
            known = {id: float(f"{gain:.4f}") for id, gain in sorted(gains.items()) if id in self._entries}
            new = {id: gain for id, gain in known.items() if (round, gain) not in self._gains.get(id, [])}
            if new:
                self._write({"op": "worth", "round": round, "gains": new})
            for id, gain in new.items():
                self._gains.setdefault(id, []).append((round, gain))

    def gain(self, entry_id: str, as_of: int | None = None) -> float:
        """What the entry was worth when it was last written down, now or as of a round; 0 if it never was."""
        found = [gain for round, gain in self._gains.get(entry_id, ()) if as_of is None or round <= as_of]
        return found[-1] if found else 0.0

    def aside(self) -> list[Entry]:
        """The entries that this user's key has not signed: edited, planted, or from elsewhere. Nobody is shown them."""
        with self._lock:
            return list(self._aside.values())

    def gone(self, entry_id: str) -> tuple[int, str] | None:
        """The round at which the entry was retired, and why; None for one that is there."""
        return self._retired.get(entry_id)

    def quarantined(self, entry_id: str, as_of: int | None = None) -> tuple[int, str] | None:
        """From which round on the entry is in quarantine, now or as of a round, and why; None for one that is not."""
        round, why = self.stance(entry_id, as_of)
        return None if why is None else (round, why)

    def stance(self, entry_id: str, as_of: int | None = None) -> tuple[int, str | None]:
        """What was last said of an entry's quarantine, now or as of a round: from which round on, and why; None: not in it."""
        said = [one for one in self._quarantine.get(entry_id, ()) if as_of is None or one[0] <= as_of]
        return said[-1] if said else (0, None)

    def state(self, entry_id: str) -> str:
        """How a known entry stands: `there`, `quarantined` or `retired`."""
        return "retired" if entry_id in self._retired else "quarantined" if self.quarantined(entry_id) else "there"

    def annotation(self, entry_id: str) -> str:
        """The user's note on the entry; empty where there is none."""
        return self._notes.get(self._kept.get(entry_id, entry_id), "")

    def all(self) -> list[Entry]:
        """Every entry that was ever added, oldest first."""
        with self._lock:
            return [self.seen(held.entry) for held in self._entries.values()]

    def present(self, entry: Entry | Held, as_of: int | None = None) -> bool:
        """Whether the entry is there, now or as of a round."""
        retired = self._retired.get(entry.id)
        added = retired is None if as_of is None else entry.round <= as_of and (retired is None or retired[0] > as_of)
        return added and not (entry.id in self._quarantine and self.quarantined(entry.id, as_of))

    @property
    def size(self) -> int:
        """How many entries were ever added."""
        return len(self._entries)

    def names(self, kind: str | None = None, env: str | None = None) -> list[Shelf]:
        """The shelves that there are, of all kinds and environments or of one."""
        with self._lock:
            return [one for one in self._shelves if env in (None, one[0]) and kind in (None, one[1])]

    def shelves(self) -> dict[Shelf, Mapping[str, str]]:
        """For each (env, kind) what of the keys of all entries, retired ones too, is indexed: {id: text}."""
        with self._lock:
            return {shelf: held.texts() for shelf, held in self._shelves.items()}

    def shelf(self, shelf: Shelf) -> Mapping[str, str]:
        """As `shelves`, for one of them."""
        with self._lock:
            return self._shelves[shelf].texts() if shelf in self._shelves else {}

    def asked(self, query: str, env: str, as_of: int | None = None) -> str:
        """What of `query` is compared with keys of `env`: without what all keys of one of its shelves share, as of a round."""
        with self._lock:
            shelves = [held for (of, _), held in self._shelves.items() if of == env and (as_of is None or held.round <= as_of)]
            return distinctive(query, {part for held in shelves for part in held.shared})

    def indexed(self, shelf: Shelf, entry: Entry) -> str:
        """The id under which the entry's own key is indexed."""
        with self._lock:
            return key_id(self._shelves[shelf].text(entry.key))

    def under(self, shelf: Shelf, id: str, as_of: int | None = None) -> list[Entry]:
        """The entries of `shelf` whose key is indexed under that id and that are there, now or as of a round."""
        with self._lock:
            if not (shelved := self._shelves.get(shelf)):
                return []
            having = [
                one for key in shelved.indexed.get(id, ()) for one in shelved.raw[key] if as_of is None or one.round <= as_of
            ]
            kept = dict.fromkeys(self._kept.get(one.id, one.id) for one in having)
            found = [held for id in kept if self.present(held := self._entries[id], as_of)]
            return [self.seen(held.entry, as_of) for held in found]

    def stats(self) -> dict[str, Any]:
        """Counts of the entries that are there now, by kind, env and round; and how many were retired."""
        present = self._held()
        return {
            "entries": len(present),
            "retired": len(self._retired),
            "quarantined": sum(self.state(id) == "quarantined" for id in self._quarantine),
            "set_aside": len(self._aside),
            "by_kind": dict(sorted(Counter(held.shelf[1] for held in present).items())),
            "by_env": dict(sorted(Counter(held.shelf[0] for held in present).items())),
            "by_round": dict(sorted(Counter(held.round for held in present).items())),
        }

    def vouch(self) -> None:
        """Write down, signed, what the lines up to here say: who opens the journal next need not read and check each again.

        Not for the sake of a few more lines, which are soon read.
        """
        with self._lock:
            if self._size - self._sealed > self._size // FEW and not self._aside:
                said = {"form": FORM, "size": self._size, "sha256": self._digest.hexdigest(), "told": self._all_but_texts()}
                with contextlib.suppress(OSError):  # then they are checked
                    seal(self._journal.path.parent, said)

    def _all_but_texts(self) -> dict[str, Any]:
        """What is known, as JSON, but for what entries say and are found by; `_restore` takes it in again."""
        places = {shelf: place for place, shelf in enumerate(self._shelves)}
        keys = {shelf: {id: place for place, id in enumerate(held.raw)} for shelf, held in self._shelves.items()}
        lines = sorted([*self._entries.values(), *(one for again in self._again.values() for one in again)], key=_start)
        return {
            "shelves": [{"env": env, "kind": kind, **held.told()} for (env, kind), held in self._shelves.items()],
            "lines": [
                [held.id for held in lines],
                [places[held.shelf] for held in lines],
                [held.round for held in lines],
                [held.start for held in lines],
                [keys[held.shelf][held.under] for held in lines],
            ],
            "kept": self._kept,
            "retired": self._retired,
            "gains": self._gains,
            "quarantine": self._quarantine,
            "notes": self._notes,
            "forgotten": sorted(self._forgotten),
        }

    def _read(self, lines: Lines) -> None:
        """Take in the lines: those that were vouched for as it was written down, the others one by one."""
        data, said = lines.data, sealed(lines.path.parent) or {}
        size = said.get("size", 0) if said.get("form") == FORM else 0
        self._digest.update(memoryview(data)[:size])
        if 0 < size <= len(data) and said["sha256"] == self._digest.hexdigest():
            self._restore(said["told"], lines)
            self._sealed = size
        start = self._sealed
        number = data.count(b"\n", 0, start) if start < len(data) else 0
        while start < len(data):
            end, number = data.index(b"\n", start), number + 1
            self._replay(lines, start, self._journal.parse(data[start:end], number), f"{lines.path}:{number}")
            start = end + 1
        self._digest.update(memoryview(data)[size:])
        self._size = len(data)

    def _restore(self, told: dict[str, Any], lines: Lines) -> None:
        shelves = [(one["env"], one["kind"]) for one in told["shelves"]]
        keys = [one["keys"] for one in told["shelves"]]
        keyed: list[list[list[Held]]] = [[[] for _ in one] for one in keys]
        self._kept = told["kept"]
        for id, place, round, start, key in zip(*told["lines"], strict=True):
            held = Held(id, shelves[place], keys[place][key], round, start, lines)
            self._file(held, self._kept.get(id, ""))
            keyed[place][key].append(held)
        for shelf, one, having in zip(shelves, told["shelves"], keyed, strict=True):
            self._shelves[shelf] = Shelved.as_told(one, having)
        self._retired = {id: (round, why) for id, (round, why) in told["retired"].items()}
        self._gains = {id: [(round, gain) for round, gain in gains] for id, gains in told["gains"].items()}
        self._quarantine = {id: [(round, why) for round, why in said] for id, said in told["quarantine"].items()}
        self._notes = told["notes"]
        self._forgotten = set(told["forgotten"])

    def _write(self, *lines: dict[str, Any]) -> list[int]:
        """Append the lines to the journal; at which byte each begins."""
        written = self._journal.append(*lines) if lines else []
        starts = list(accumulate(map(len, written), initial=self._size))
        self._digest.update(b"".join(written))
        self._size = starts.pop()
        return starts

    def _held(self, as_of: int | None = None, kind: str | None = None, env: str | None = None) -> list[Held]:
        return [
            held
            for held in self._entries.values()
            if env in (None, held.shelf[0]) and kind in (None, held.shelf[1]) and self.present(held, as_of)
        ]

    def _keep(self, held: Held, kept: str = "") -> bool:
        """Take the entry in; whether its shelf is to be indexed anew."""
        if kept:
            self._kept[held.id] = kept
        elif self._texts is not None:
            self._texts.setdefault(_told(held.entry), []).append(held.id)
        self._file(held, kept)
        shelved = self._shelves.get(held.shelf) or self._shelves.setdefault(held.shelf, Shelved(held.round))
        return shelved.add(held.under, held, held.round)

    def _file(self, held: Held, kept: str) -> None:
        """Put the entry where it is found: by its id, or with the one that it is kept with."""
        if kept:
            self._again.setdefault(kept, []).append(held)
        else:
            self._entries[held.id] = held

    def _retire(self, id: str, round: int, why: str) -> None:
        self._retired.setdefault(id, (round, why))

    def _teller(self, told: str) -> str:
        """The id of the oldest entry that is there and tells this; empty if none does."""
        if self._texts is None:
            self._texts = {}
            for held in self._entries.values():
                self._texts.setdefault(_told(held.entry), []).append(held.id)
        return next((id for id in self._texts.get(told, ()) if id not in self._retired), "")

    def _replay(self, lines: Lines, start: int, line: dict[str, Any], where: str) -> None:
        match line:
            case {"op": "add" | "again", "entry": dict() as fields} if not holds(line):
                entry = read_entry(fields, where)
                self._aside.setdefault(entry.id, entry)
            case {"op": "add", "entry": dict() as fields}:
                if fields["id"] not in self._entries:
                    self._keep(Held.at(fields, start, lines))
            case {"op": "again", "id": str() as kept, "entry": dict() as fields} if kept in self._entries:
                if fields["id"] not in self._kept:
                    self._keep(Held.at(fields, start, lines), kept)
            case {"op": "retire" | "quarantine" | "release" | "annotate", "id": str() as entry_id} if self._unsigned(entry_id):
                pass
            case {"op": "worth", "round": int() as round, "gains": dict() as gains}:
                for id, gain in gains.items():
                    self._gains.setdefault(id, []).append((round, float(gain)))
            case {"op": "forget", "id": str() as entry_id}:
                self._forgotten.add(entry_id)
            case {"op": "retire", "id": str() as entry_id, "round": int() as round} if entry_id in self._entries:
                self._retire(entry_id, round, str(line.get("why", "")))
            case (
                {"op": "quarantine", "id": str() as entry_id, "round": int(), "why": str()}
                | {"op": "release", "id": str() as entry_id, "round": int()}
                | {"op": "annotate", "id": str() as entry_id, "text": str()}
            ) if entry_id in self._entries:
                self._hear(line)
            case _:
                told = '"again", "retire", "quarantine", "release" or "annotate" of a known id'
                known = f'"add" of an entry, {told}, "worth" or "forget"'
                raise AgentevolveError(f"{where}: not a line of a memory: expected {known}")

    def _unsigned(self, entry_id: str) -> bool:
        """Whether all that there is of that id was set aside."""
        return entry_id in self._aside and entry_id not in self._entries


class Lines(NamedTuple):
    """All lines of the journal at `path`, as they were when they were read."""

    path: Path
    data: bytes


class Held:
    """An entry as its signed line has it: what it is filed under, and the whole when that is asked for.

    Most entries of a large memory are never asked for, and a record costs several times what its line does. `start` is where the
    line begins, `under` the id of the entry's key.
    """

    __slots__ = ("_entry", "_key", "_lines", "id", "round", "shelf", "start", "under")

    def __init__(self, id: str, shelf: Shelf, under: str, round: int, start: int, lines: Lines | None = None) -> None:
        self.id, self.shelf, self.under, self.round, self.start = id, shelf, under, round, start
        self._lines = lines
        self._entry: Entry | None = None
        self._key: str | None = None

    @classmethod
    def of(cls, entry: Entry, start: int) -> Held:
        """The entry, just written."""
        held = cls(entry.id, (entry.env, entry.kind), key_id(entry.key), entry.round, start)
        held._entry = entry
        return held

    @classmethod
    def at(cls, fields: Mapping[str, Any], start: int, lines: Lines) -> Held:
        """The entry of these fields, just read."""
        shelf, key = (fields["env"], fields["kind"]), fields["key"]
        held = cls(fields["id"], shelf, key_id(key), fields.get("round", 0), start, lines)
        held._key = key
        return held

    @property
    def key(self) -> str:
        """What the entry is found by."""
        if self._key is None:
            self._key = self._entry.key if self._entry else str(self._fields()["key"])
        return self._key

    @property
    def entry(self) -> Entry:
        """The whole entry."""
        if self._entry is None:
            try:
                self._entry = Entry.model_validate(self._fields())
            except ValidationError as error:
                assert self._lines
                number = self._lines.data.count(b"\n", 0, self.start) + 1
                raise _not_an_entry(error, f"{self._lines.path}:{number}") from None
        return self._entry

    def _fields(self) -> dict[str, Any]:
        assert self._lines
        data = self._lines.data
        return dict(json.loads(data[self.start : data.index(b"\n", self.start)])["entry"])


def _told(entry: Entry) -> str:
    """What the entry says, with what is said about it: two that differ in that are not the same."""
    told = repr((entry.env, entry.kind, entry.task, entry.reward, sorted(entry.counts.items()), entry.text))
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def read_entry(fields: dict[str, Any], where: str) -> Entry:
    """The entry of these fields. Raises AgentevolveError naming `where` and the field that is wrong."""
    try:
        return Entry.model_validate(fields)
    except ValidationError as error:
        raise _not_an_entry(error, where) from None


def _not_an_entry(error: ValidationError, where: str) -> AgentevolveError:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return AgentevolveError(f"{where}: not an entry: {field}: {first['msg']}")


def _start(held: Held) -> int:
    return held.start
