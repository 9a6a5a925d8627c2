"""The list of what a run remembers: read again when a memory's journal has changed, filtered, counted, page by page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

from pydantic import field_validator

from agentevolve.memory import Ledger, read_ledger
from agentevolve.memory.folder import ABOUT, JOURNAL
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry, Record
from agentevolve.view import rows
from agentevolve.view.attempts import MOST, PAGE, Number, beyond, cursor
from agentevolve.view.index import ReadIndex, Row
from agentevolve.view.text import words

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
FACETS = ("kind", "state", "round", "env", "seed")
SHOWN = "n, seed, id, kind, env, task, round, reward, gain, chars, state, gone, why, start"


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
    state: Literal["", "there", "retired", "set aside"] = ""
    round: Number | None = None
    task: str = ""
    text: str = ""
    near: str = ""
    sort: Literal["first", "last", "round", "reward", "gain", "longest"] = "first"
    after: str = ""

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
    """The memories of a run's seeds, each read again when its journal has changed."""

    def __init__(self, index: ReadIndex) -> None:
        self.index = index
        self._read: dict[int, tuple[tuple[int, ...], Ledger]] = {}

    def update(self) -> None:
        """Take in what the memories' journals say now."""
        for seed, folder in sorted(self.index.folders.items()):
            if (said := _said(folder / "memory")) is None:
                continue
            found = self.index.ask("SELECT inode, size, changed FROM memories WHERE seed = ?", (seed,))
            if not found or tuple(found[0]) != said:
                self._take(seed, self.ledger(seed), said)

    def state(self) -> tuple[tuple[int, ...], ...]:
        """Up to where the memories were read: the same state gives the same answers."""
        return tuple(tuple(row) for row in self.index.ask("SELECT * FROM memories ORDER BY seed"))

    def ledger(self, seed: int) -> Ledger:
        """What the memory of a seed says. Raises AgentevolveError where it has none."""
        folder = self.index.folders[seed] / "memory"
        if (said := _said(folder)) is None:
            raise AgentevolveError(f"{folder}: there is no memory")
        known, ledger = self._read.get(seed, (None, None))
        if ledger is None or known != said:
            ledger = read_ledger(folder)
            self._read[seed] = said, ledger
        return ledger

    def _take(self, seed: int, ledger: Ledger, said: tuple[int, ...]) -> None:
        told = [(entry, "there" if ledger.present(entry) else "retired") for entry in ledger.all()]
        aside = [(entry, "set aside") for entry in ledger.aside()]
        made = [_row(ledger, seed, place, entry, state) for place, (entry, state) in enumerate(told)]
        made += [_row(ledger, seed, ASIDE + place, entry, state) for place, (entry, state) in enumerate(aside)]
        texts = {rows.place(seed, place): f"{entry.key}\n{entry.text}" for place, (entry, _) in enumerate(told)}
        texts |= {rows.place(seed, ASIDE + place): f"{entry.key}\n{entry.text}" for place, (entry, _) in enumerate(aside)}
        with self.index.writing():
            query = f"SELECT {SHOWN} FROM entries WHERE n >= ? AND n < ?"
            known = {row["n"]: tuple(row) for row in self.index.ask(query, span(seed))}
            changed = [row for row in made if known.get(row[0]) != row]
            other = [row for row in changed if row[0] not in known or known[row[0]][2] != row[2]]
            gone = known.keys() - {row[0] for row in made}
            old = [(n,) for n in gone | {row[0] for row in other}]
            for table, column in (("entry_words", "rowid"), ("entries", "n")):
                self.index.write(f"DELETE FROM {table} WHERE {column} = ?", [one for one in old if one[0] in known])
            marks = ", ".join("?" * len(SHOWN.split(", ")))
            self.index.write(f"INSERT OR REPLACE INTO entries ({SHOWN}) VALUES ({marks})", changed)
            self.index.write(
                "INSERT INTO entry_words (rowid, text) VALUES (?, ?)", [(row[0], rows.plain(texts[row[0]])) for row in other]
            )
            self.index.write("INSERT OR REPLACE INTO memories VALUES (?, ?, ?, ?)", [(seed, *said)])


def groups(index: ReadIndex, asked: Wanted) -> list[Row]:
    """How many entries there are for all values of the facets together, under the rest of the filter: one look at them all."""
    where, values = condition(asked.model_copy(update={name: Wanted.model_fields[name].default for name in FACETS}))
    names = ", ".join(FACETS)
    return index.ask(f"SELECT {names}, count(*) AS count FROM entries WHERE {where} GROUP BY {names}", values)


def listed(index: ReadIndex, asked: Wanted, found: Sequence[Row]) -> dict[str, Any]:
    """A page of the entries: `rows` with how often each was used, the filter in words, the facets with the counts of their values

    (from the `groups` found), and the query of the next page.
    """
    where, values = condition(asked)
    count = sum(row["count"] for row in found if meets(row, asked))
    column, down = SORTS[asked.sort]
    behind, more = beyond(asked.after, column, down, ())
    way = "DESC" if down else "ASC"
    query = f"SELECT {SHOWN} FROM entries WHERE {where}{behind} ORDER BY {column} {way}, n {way} LIMIT ?"
    rows = index.ask(query, (*values, *more, PAGE + 1))
    return {
        "rows": [{**dict(row), "uses": uses_of(index, row["id"], row["seed"])} for row in rows[:PAGE]],
        "count": count,
        "said": f"{count:,} {in_words(asked, count)}",
        "next": asked.query(after=cursor(rows[PAGE - 1], column)) if len(rows) > PAGE else "",
        "facets": facets(found, asked),
    }


def facets(found: Sequence[Row], asked: Wanted) -> dict[str, Any]:
    """The values of each facet with how many entries have them, from the `groups` found."""
    return {name: _facet(found, name, asked) for name in FACETS}


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
    yield states.get(asked.state, "")
    yield f"of round {asked.round}" if asked.round is not None else ""
    yield f"about the task {asked.task}" if asked.task else ""
    yield f"of the environment {asked.env}" if asked.env else ""
    yield f"of seed {asked.seed}" if asked.seed is not None else ""
    yield f"with the words “{asked.text}”" if asked.text else ""


def meets(row: Row, asked: Wanted, but: str = "") -> bool:
    """Whether the values are those that are asked for, whatever that of the facet `but` is."""
    return all(row[name] == value for name in FACETS if name != but and (value := getattr(asked, name)) not in (None, ""))


def _facet(found: Sequence[Row], name: str, asked: Wanted) -> list[dict[str, Any]]:
    counts: Counter[Any] = Counter()
    for row in found:
        if meets(row, asked, name):
            counts[row[name]] += row["count"]
    chosen = getattr(asked, name)
    return [{"value": value, "count": count, "chosen": value == chosen} for value, count in sorted(counts.items())[:MOST]]


def uses_of(index: ReadIndex, id: str, seed: int) -> int:
    """How many attempts of the seed were shown the entry."""
    [[count]] = index.ask(f"SELECT count(DISTINCT n) {USES}", (id, *span(seed)))
    return int(count)


def span(seed: int) -> tuple[int, int]:
    """Between which numbers the lines of a seed are."""
    return rows.place(seed, 0), rows.place(seed + 1, 0)


def _said(folder: Path) -> tuple[int, ...] | None:
    """What changes when the memory's journal does; None where there is no memory."""
    if not (folder / ABOUT).is_file() or not (folder / JOURNAL).is_file():
        return None
    about = (folder / JOURNAL).stat()
    return about.st_ino, about.st_size, about.st_mtime_ns


def _row(ledger: Ledger, seed: int, place: int, entry: Entry, state: str) -> tuple[Any, ...]:
    gone, why = ledger.gone(entry.id) or (None, "") if state == "retired" else (None, "")
    facts: Mapping[str, Any] = entry.model_dump(include={"id", "kind", "env", "task", "round", "reward"})
    about = [rows.plain(facts[name]) if isinstance(facts[name], str) else facts[name] for name in ("kind", "env", "task")]
    gain = ledger.gain(entry.id)
    shown = (entry.round, entry.reward, gain, len(entry.text), state, gone, rows.plain(why), rows.plain(entry.text[:START]))
    return (rows.place(seed, place), seed, rows.plain(entry.id), *about, *shown)


def condition(asked: Wanted) -> tuple[str, list[Any]]:
    """The filter as a condition of SQL, with its values."""
    parts, values = ["1"], []
    for name in ("seed", "kind", "env", "state", "round", "task"):
        value = getattr(asked, name)
        if value not in (None, ""):
            parts.append(f"+{name} = ?")  # the plus: by the index of the order, not by this one, which would sort them all
            values.append(value)
    if asked.text:
        parts.append("n IN (SELECT rowid FROM entry_words WHERE entry_words MATCH ?)")
        values.append(words(asked.text))
    return " AND ".join(parts), values
