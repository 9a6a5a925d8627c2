"""The read index of a run, or of a memory alone: what its journals say, in SQLite, so that lists need not read the bodies.

It is derived: made from the journals, extended from the byte up to which they were read, made again when a journal was rewritten
(its inode or the bytes before that place differ), and free to be deleted at any time. Readers lock nothing of the run. It lies in
the run's folder, where `memory forget` removes it, or in the user's cache where that cannot be written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agentevolve.memory.folder import ABOUT
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Trajectory
from agentevolve.run.checkpoint import attempt_in
from agentevolve.run.folder import ACCEPTED, AGAIN, ATTEMPT, JOURNAL, OPENING, VIEW, journal_of, started
from agentevolve.run.segments import Line, Segments
from agentevolve.view import rows
from agentevolve.view.schema import TABLES, VERSION

WAIT = 30.0  # seconds for another viewer that is reading in the same run
BUSY = 0.05  # seconds for a thread that writes something else: what was read before is shown then

Row = sqlite3.Row


class ReadIndex:
    """The read index of the run at `place`, one or several seeds, or of the memory there. Safe to use from several threads.

    Raises AgentevolveError where there is neither, or file and line where a journal is damaged.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.folders = _folders(place)
        self._lock, self._asking = threading.RLock(), threading.Lock()
        self._db = _opened(index_path(place))
        self._reader = _connected(index_path(place))  # so that nobody who asks waits for what is being written
        self._known = False  # whether all was read once

    @property
    def alone(self) -> bool:
        """Whether it is of a memory without a run."""
        return not started(self.place)

    def memory(self, seed: int) -> Path:
        """The folder of the memory of a seed, which need not be there."""
        return self.folders[seed] if self.alone else self.folders[seed] / "memory"

    def update(self) -> bool:
        """Take in what the journals say more than was read; whether there was anything."""
        if not self._lock.acquire(timeout=BUSY if self._known else -1):
            return False
        try:
            self.folders = _folders(self.place)
            found = [] if self.alone else [self._update(seed, folder) for seed, folder in sorted(self.folders.items())]
            self._known = True
            return any(found)
        finally:
            self._lock.release()

    def update_words(self) -> None:
        """Make what was read searchable by its words: asked for at the first search, since it takes longer than all else."""
        with self._lock:
            for seed, folder in sorted(self.folders.items()):
                if not self.alone and self._unsaid(seed):
                    with self._writing():
                        self._words(seed, journal_of(folder))

    def ask(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        """The rows that a query finds."""
        with self._asking:
            return self._reader.execute(query, values).fetchall()

    def write(self, query: str, values: Sequence[Sequence[object]]) -> None:
        """Carry a change out for each of `values`; within `writing`."""
        self._db.executemany(query, values)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """All or nothing of what is written meanwhile."""
        with self._lock, self._writing():
            yield

    def state(self) -> tuple[tuple[int, int], ...]:
        """Up to where each journal was read: the same state gives the same answers."""
        return tuple((one["seed"], one["done"]) for one in self.ask("SELECT seed, done FROM sources ORDER BY seed"))

    def body(self, n: int, size: int, seed: int) -> Trajectory:
        """The attempt whose line has that number and size, read from the journal."""
        journal = journal_of(self.folders[seed])
        one = attempt_in(journal, Line(rows.start_of(n), journal.line(rows.start_of(n), size)))
        if one is None:
            raise AgentevolveError(f"{journal.path}: was rewritten meanwhile; look again")
        return one

    def close(self) -> None:
        """Give back what it holds."""
        with self._lock, self._asking:
            self._db.close()
            self._reader.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def _update(self, seed: int, folder: Path) -> bool:
        journal = journal_of(folder)
        about = journal.written()
        found = self._source(seed)
        if found and about == (found["inode"], found["size"], found["changed"]):
            return False
        with self._writing():
            start = end = self._go_on(seed, journal, about)
            for line in journal.lines(start):
                self._take(line, seed, journal)
                end = line.at + len(line.text) + 1
            self._db.execute(
                "UPDATE sources SET name = ?, inode = ?, size = ?, changed = ?, done = ?, tail = ? WHERE seed = ?",
                (folder.name, *about, end, _tail(journal, end), seed),
            )
        return end != start

    def _source(self, seed: int) -> Row | None:
        found = self._db.execute("SELECT * FROM sources WHERE seed = ?", (seed,)).fetchone()
        return found if isinstance(found, sqlite3.Row) else None

    def _go_on(self, seed: int, journal: Segments, about: tuple[int, int, int]) -> int:
        """From which byte to read on; all of a journal that is not the one that was read before."""
        found = self._source(seed)
        longer = found is not None and found["inode"] == about[0] and found["done"] <= about[1]
        if found and longer and _tail(journal, found["done"]) == found["tail"]:
            return int(found["done"])
        span = rows.place(seed, 0), rows.place(seed + 1, 0)
        for table in ("uses", "attempts", "facts"):
            self._db.execute(f"DELETE FROM {table} WHERE n >= ? AND n < ?", span)
        if found and found["said"]:
            # words cannot be taken out one by one: all are read again when they are asked for
            self._db.execute("INSERT INTO words(words) VALUES ('delete-all')")
            self._db.execute("UPDATE sources SET said = 0")
        self._db.execute("INSERT OR REPLACE INTO sources (seed, done, said) VALUES (?, 0, 0)", (seed,))
        return 0

    def _take(self, line: Line, seed: int, journal: Segments) -> None:
        try:
            said = journal.parse(line)
            match said["kind"]:
                case "trajectory":
                    self._attempt(said["data"], seed, line.at, len(line.text))
                case "fact":
                    self._fact(said, seed, line.at)
                case "segment":
                    pass
                case "run" if said["format"] == OPENING["format"]:
                    pass
                case kind:
                    raise KeyError(f"kind: {str(kind)[:100]!r}, or its format, is not known")
        except (AgentevolveError, KeyError, TypeError, AttributeError) as error:
            path, number = journal.whereabouts(line.at)
            raise AgentevolveError(f"{path}:{number}: not a line of a run's journal ({str(error)[:200]})") from None

    def _attempt(self, one: rows.Line, seed: int, at: int, size: int) -> None:
        row = rows.attempt_row(one, seed, at, size)
        self._replaced([row["id"]], seed)
        marks = ", ".join(f":{name}" for name in row)
        self._db.execute(f"INSERT INTO attempts ({', '.join(row)}) VALUES ({marks})", row)
        self._db.executemany("INSERT OR IGNORE INTO uses VALUES (?, ?, ?, ?, ?)", rows.uses(one, row["n"]))

    def _fact(self, line: rows.Line, seed: int, at: int) -> None:
        self._db.execute(
            "INSERT INTO facts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET data = excluded.data, usage = excluded.usage",
            rows.fact_row(line, seed, at),
        )
        if line["name"].startswith(AGAIN) and not line["name"].startswith(ACCEPTED):
            self._replaced(line["data"], seed)

    def _replaced(self, ids: Sequence[str], seed: int) -> None:
        """What is made again stands no more; what it cost stays counted."""
        self._db.executemany("UPDATE attempts SET standing = 0 WHERE id = ? AND seed = ?", [(rows.plain(id), seed) for id in ids])

    def _unsaid(self, seed: int) -> bool:
        found = self._source(seed)
        return found is not None and found["said"] < found["done"]

    def _words(self, seed: int, journal: Segments) -> None:
        found = self._source(seed)
        assert found
        for line in journal.lines(found["said"], found["done"]):
            if line.text.startswith(ATTEMPT):
                said = rows.words_of(journal.parse(line)["data"])
                self._db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (rows.place(seed, line.at), said))
        self._db.execute("UPDATE sources SET said = ? WHERE seed = ?", (found["done"], seed))


def _folders(place: Path) -> dict[int, Path]:
    """The folders of the seeds of the run at `place`, by number; that of a memory alone is its own."""
    found = started(place)
    if not found and not (place / ABOUT).is_file():
        raise AgentevolveError(f"{place}: neither a run nor a memory: there is no {JOURNAL} and no {ABOUT} in it")
    return {rows.number_of(one.name) if one != place else 0: one for one in found or [place]}


def index_path(place: Path) -> Path:
    """Where the index of the run or memory at `place` lies."""
    if os.access(place, os.W_OK):
        return place / VIEW
    import platformdirs

    name = hashlib.sha256(str(place.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return platformdirs.user_cache_path("agentevolve") / "view" / f"{name}.sqlite"


def _opened(path: Path) -> sqlite3.Connection:
    """The index at `path`, a new one if it is of another version or damaged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _connected(path)
    except sqlite3.DatabaseError:
        for one in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
            one.unlink(missing_ok=True)
    try:
        return _connected(path)
    except sqlite3.Error as error:
        raise AgentevolveError(f"{path}: cannot be made: {error}") from None


def _connected(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
    try:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = OFF")  # what a crash takes is made again
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError("another version")
        if not version:
            db.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
    except BaseException:
        db.close()
        raise
    return db


def _tail(journal: Segments, done: int) -> str:
    """What of a journal that was read up to a place is not so in one that was rewritten."""
    return json.dumps(journal.signs(done)[-1])


def facts_of(index: ReadIndex, seed: int, prefix: str = "") -> dict[str, Any]:
    """The kept facts of a seed whose names begin so, in the order in which they were first said."""
    found = index.ask("SELECT name, data FROM facts WHERE seed = ? AND data IS NOT NULL ORDER BY n", (seed,))
    return {one["name"]: json.loads(one["data"]) for one in found if one["name"].startswith(prefix)}
