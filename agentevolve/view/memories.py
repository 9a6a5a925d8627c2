"""The list of what a run remembers: read again when a memory's journal has changed, filtered, counted, page by page."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

from pydantic import field_validator

from agentevolve.memory import Ledger, read_ledger
from agentevolve.memory.folder import ABOUT, JOURNAL, about
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry, Record
from agentevolve.view import rows
from agentevolve.view.attempts import PAGE, Number, cursor
from agentevolve.view.columns import FACETS, Columns, packed, unpacked
from agentevolve.view.index import ReadIndex, Row
from agentevolve.view.text import words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Said = tuple[int, int, int]  # inode, size and time of a journal
FOUND = 32  # searches whose findings are kept
START = 200  # characters of a text in a list
ASIDE = 1 << 36  # where the entries begin that nobody is shown
SORTS = {
    "first": ("n", False),
    "last": ("n", True),
    "round": ("round", False),
    "reward": ("reward", True),
    "gain": ("gain", True),
    "longest": ("chars", True),
}
SORTED = {
    "first": "the oldest first",
    "last": "the newest first",
    "round": "by round",
    "reward": "the best rewarded first",
    "gain": "the greatest gain first",
    "longest": "the longest first",
}
SHOWN = "n, seed, id, kind, env, task, round, reward, gain, chars, state, gone, why, start, note"
NAMES = SHOWN.split(", ")

# the uses of an entry in a seed, with the attempts that stand
USES = (
    "FROM (SELECT entry, n, turn, similarity, tokens AS u_tokens FROM uses) JOIN attempts USING (n)"
    " WHERE entry = ? AND n >= ? AND n < ? AND standing = 1"
)


class Wanted(Record):
    """Which entries are asked for, as the address says it; empty: all. `after` is the last row of the page before.

    Those nearest in meaning to `near` come in the order of their nearness.
    """

    seed: Number | None = None
    kind: str = ""
    env: str = ""
    state: Literal["", "there", "quarantined", "retired", "set aside"] = ""
    round: Number | None = None
    task: str = ""
    text: str = ""
    near: str = ""
    sort: Literal["first", "last", "round", "reward", "gain", "longest"] = "first"
    after: str = ""

    @property
    def facets(self) -> dict[str, Any]:
        """The facets that are asked for, with their values."""
        return {name: value for name in FACETS if (value := getattr(self, name)) not in (None, "")}

    @field_validator("seed", "round", mode="before")
    @classmethod
    def _empty(cls, value: object) -> object:
        return None if value == "" else value

    def query(self, **changes: object) -> str:
        """The address's query, without what is not asked for; `changes` replace fields."""
        asked = self.model_dump() | {"after": ""} | changes
        default = type(self)().model_dump()
        return urlencode({name: value for name, value in asked.items() if value is not None and value != default[name]})


class Memories:
    """The memories of a run's seeds, or the one that is alone, each read again when its journal has changed."""

    def __init__(self, index: ReadIndex) -> None:
        self.index = index
        self._read: dict[int, tuple[Said, Ledger]] = {}
        self._columns: tuple[tuple[tuple[int, ...], ...], Columns] | None = None
        self._lock = threading.Lock()
        self._among: dict[tuple[str, str], tuple[Columns, NDArray[np.bool_] | None]] = {}

    def update(self) -> None:
        """Take in what the memories' journals say now."""
        known = self._known()
        for seed, said in self.now():
            if known.get(seed) != said:
                self._take(seed, self.ledger(seed), said)

    def behind(self) -> bool:
        """Whether a journal says more than was read."""
        known = self._known()
        return any(known.get(seed) != said for seed, said in self.now())

    def now(self) -> tuple[tuple[int, Said], ...]:
        """How far the journals are that are there, by seed."""
        found = ((seed, _said(self.index.memory(seed))) for seed in sorted(self.index.folders))
        return tuple((seed, said) for seed, said in found if said is not None)

    def state(self) -> tuple[tuple[int, ...], ...]:
        """Up to where the memories were read: the same state gives the same answers."""
        return tuple((seed, *said) for seed, said in self._known().items())

    def _known(self) -> dict[int, Said]:
        found = self.index.ask("SELECT seed, inode, size, changed FROM memories ORDER BY seed")
        return {row["seed"]: (row["inode"], row["size"], row["changed"]) for row in found}

    def columns(self) -> Columns:
        """What the entries are filtered by."""
        state, kept = self.state(), self._columns
        if kept is None or kept[0] != state:
            rows = self.index.ask("SELECT data FROM columns ORDER BY seed")
            kept = self._columns = state, unpacked([row["data"] for row in rows])
        return kept[1]

    def among(self, columns: Columns, asked: Wanted) -> NDArray[np.bool_] | None:
        """Which of the entries have the words and are about the task that are asked for; None where neither is."""
        key = asked.text, asked.task
        known = self._among.get(key)
        if known is None or known[0] is not columns:
            known = columns, self._find(columns, asked)
            with self._lock:
                self._among[key] = known
                while len(self._among) > FOUND:
                    del self._among[next(iter(self._among))]
        return known[1]

    def _find(self, columns: Columns, asked: Wanted) -> NDArray[np.bool_] | None:
        found = None
        if asked.text:
            found = columns.at(self._numbers("rowid", "entry_words WHERE entry_words MATCH ?", words(asked.text)))
        if asked.task:
            about = columns.at(self._numbers("n", "entries WHERE task = ?", asked.task))
            found = about if found is None else found & about
        return found

    def _numbers(self, column: str, where: str, value: str) -> NDArray[np.int64]:
        """The numbers of the entries that a query finds, as one row: of many rows each is a change of threads."""
        import numpy as np

        [[found]] = self.index.ask(f"SELECT group_concat({column}) FROM {where}", (value,))
        return np.fromstring(found or "", np.int64, sep=",")

    def ledger(self, seed: int) -> Ledger:
        """What the memory of a seed says. Raises AgentevolveError where it has none."""
        folder = self.index.memory(seed)
        if (said := _said(folder)) is None:
            raise AgentevolveError(f"{folder}: there is no memory")
        known, ledger = self._read.get(seed, (None, None))
        if ledger is None or known != said:
            ledger = read_ledger(folder)
            self._read[seed] = said, ledger
        return ledger

    def _take(self, seed: int, ledger: Ledger, said: Said) -> None:
        told = [(entry, ledger.state(entry.id)) for entry in ledger.all()]
        aside = [(entry, "set aside") for entry in ledger.aside()]
        made = [_row(ledger, seed, place, entry, state) for place, (entry, state) in enumerate(told)]
        made += [_row(ledger, seed, ASIDE + place, entry, state) for place, (entry, state) in enumerate(aside)]
        texts = {rows.place(seed, place): f"{entry.key}\n{entry.text}" for place, (entry, _) in enumerate(told)}
        texts |= {rows.place(seed, ASIDE + place): f"{entry.key}\n{entry.text}" for place, (entry, _) in enumerate(aside)}
        columns = packed([dict(zip(NAMES, row, strict=True)) for row in made])
        with self.index.writing():
            query = f"SELECT {SHOWN} FROM entries WHERE n >= ? AND n < ?"
            known = {row["n"]: tuple(row) for row in self.index.ask(query, span(seed))}
            changed = [row for row in made if known.get(row[0]) != row]
            other = [row for row in changed if row[0] not in known or known[row[0]][2] != row[2]]
            gone = known.keys() - {row[0] for row in made}
            old = [(n,) for n in gone | {row[0] for row in other}]
            for table, column in (("entry_words", "rowid"), ("entries", "n")):
                self.index.write(f"DELETE FROM {table} WHERE {column} = ?", [one for one in old if one[0] in known])
            self.index.write(f"INSERT OR REPLACE INTO entries ({SHOWN}) VALUES ({', '.join('?' * len(NAMES))})", changed)
            self.index.write(
                "INSERT INTO entry_words (rowid, text) VALUES (?, ?)", [(row[0], rows.plain(texts[row[0]])) for row in other]
            )
            self.index.write("INSERT OR REPLACE INTO columns VALUES (?, ?)", [(seed, columns)])
            self.index.write("INSERT OR REPLACE INTO memories VALUES (?, ?, ?, ?)", [(seed, *said)])


def listed(held: Memories, asked: Wanted) -> dict[str, Any]:
    """A page of the entries: `rows` with how often each was used, the filter in words, the facets, the query of the next page."""
    index, columns = held.index, held.columns()
    told = held.among(columns, asked)
    here = columns.under(asked.facets, told)
    count = int(here.sum())
    column, down = SORTS[asked.sort]
    rows = rows_of(index, columns.page(here, column, down, asked.after, PAGE + 1))
    return {
        "rows": [{**dict(row), "uses": uses_of(index, row["id"], row["seed"])} for row in rows[:PAGE]],
        "count": count,
        "said": f"{count:,} {in_words(asked, count)}",
        "next": asked.query(after=cursor(rows[PAGE - 1], column)) if len(rows) > PAGE else "",
        "facets": columns.counted(asked.facets, told),
    }


def counted(held: Memories) -> dict[str, Any]:
    """How many entries there are in each state and of each kind, and which model has embedded them."""
    columns, model = held.columns(), about(held.index.memory(0))["embedding_model"]
    found = columns.counted({}, None)
    return {"entries": len(columns.n), "model": model, "kinds": found["kind"], "states": found["state"]}


def rows_of(index: ReadIndex, numbers: Sequence[int]) -> list[Row]:
    """The entries of these numbers, in their order."""
    marks = ", ".join("?" * len(numbers))
    known = {row["n"]: row for row in index.ask(f"SELECT {SHOWN} FROM entries WHERE n IN ({marks})", numbers)}
    return [known[n] for n in numbers if n in known]


def in_words(asked: Wanted, count: int = 0) -> str:
    """The filter as the rest of one sentence, about so many entries."""
    return described(asked, count) + (f"; {SORTED[asked.sort]}." if not asked.near else ".")


def described(asked: Wanted, count: int = 0) -> str:
    """The filter in words, without the order, about so many entries."""
    parts = [part for part in _parts(asked, count == 1) if part]
    return " ".join(["entry" if count == 1 else "entries", *parts])


def _parts(asked: Wanted, one: bool) -> Iterator[str]:
    yield f"of the kind {asked.kind}" if asked.kind else ""
    are, were = ("is", "was") if one else ("are", "were")
    states = {"there": f"that {are} there", "retired": f"that {were} retired", "set aside": "that your key has not signed"}
    states["quarantined"] = f"that {are} in quarantine"
    yield states.get(asked.state, "")
    yield f"of round {asked.round}" if asked.round is not None else ""
    yield f"about the task {asked.task}" if asked.task else ""
    yield f"of the environment {asked.env}" if asked.env else ""
    yield f"of seed {asked.seed}" if asked.seed is not None else ""
    yield f"with the words “{asked.text}”" if asked.text else ""


def meets(row: Row, asked: Wanted) -> bool:
    """Whether the values are those that are asked for."""
    return all(row[name] == value for name, value in asked.facets.items())


def uses_of(index: ReadIndex, id: str, seed: int) -> int:
    """How many attempts of the seed were shown the entry."""
    [[count]] = index.ask(f"SELECT count(DISTINCT n) {USES}", (id, *span(seed)))
    return int(count)


def span(seed: int) -> tuple[int, int]:
    """Between which numbers the lines of a seed are."""
    return rows.place(seed, 0), rows.place(seed + 1, 0)


def _said(folder: Path) -> Said | None:
    """What changes when the memory's journal does; None where there is no memory."""
    if not (folder / ABOUT).is_file() or not (folder / JOURNAL).is_file():
        return None
    stat = (folder / JOURNAL).stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _row(ledger: Ledger, seed: int, place: int, entry: Entry, state: str) -> tuple[Any, ...]:
    left = ledger.gone(entry.id) if state == "retired" else ledger.quarantined(entry.id) if state == "quarantined" else None
    gone, why = left or (None, "")
    note = ledger.annotation(entry.id) if state != "set aside" else ""
    facts: Mapping[str, Any] = entry.model_dump(include={"id", "kind", "env", "task", "round", "reward"})
    named = [rows.plain(facts[name]) if isinstance(facts[name], str) else facts[name] for name in ("kind", "env", "task")]
    gain = ledger.gain(entry.id)
    shown = (
        entry.round,
        entry.reward,
        gain,
        len(entry.text),
        state,
        gone,
        rows.plain(why),
        rows.plain(entry.text[:START]),
        rows.plain(note),
    )
    return (rows.place(seed, place), seed, rows.plain(entry.id), *named, *shown)
