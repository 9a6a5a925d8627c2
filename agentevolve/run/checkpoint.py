"""What was counted of a run's journal, so that opening a run of a million attempts reads none of them.

A checkpoint is a SQLite file beside the journal (CHECKPOINT): for each attempt its place in the journal, whether it counts, and
its figures; the facts; what each phase has cost. It is derived and free to be deleted. It says up to which place the journal was
counted, and how long each file was then and how it ended (`Segments.signs`): one that does not fit the journal, is damaged or of
another version is made again, and a journal that has grown is counted from that place on.

A file is never changed, only replaced by a whole one: so any number of processes read it while another makes the next, a kill
leaves the one before, and a folder that cannot be written goes without. What a process counts itself, be it a writer's own
attempts or what came since the last checkpoint, is in a database of its own, begun with a copy of the file, that ends with the
process. Writing it down costs about as much as counting 1/32 of it, and is done when so much more was counted (`worth`); a small
run has no checkpoint, since counting it takes less than the file.

Nothing is written down that the journal does not say: an attempt or fact in which a secret was hidden is counted here as it was
made, and in the checkpoint only by who reads the journal.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import nan
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from pydantic import BaseModel, ValidationError

from agentevolve.protocols import AgentevolveError
from agentevolve.records import SOLVED, PolicyStamp, Split, Trajectory
from agentevolve.run.journal import loaded
from agentevolve.run.segments import Line, Segments

CHECKPOINT = ".journal.sqlite"
VERSION = 1
LEAST = 8 << 20  # bytes of a journal that are counted so fast that no checkpoint is worth it
SHARE = 1 / 32
BODIES = 1_000  # attempts that were read and are kept, the last ones that were asked for
MANY = 500  # ids that are asked for at once
FAR = 1 << 63
OLD = 3600  # seconds after which what a killed process has left is removed

GONE, STANDS, LOST = 0, 1, 2  # an attempt is to be made again; counts; was lost, and is made again when it is asked for

# `position` is the order in which attempts came to stand; `at` and `size` say where the attempt's line is; `makings` how often
# it was made. Texts of which there are few are in `names`
TABLES = """
CREATE TABLE counted (done INTEGER, signs TEXT);
CREATE TABLE names (ref INTEGER PRIMARY KEY, text UNIQUE);
CREATE TABLE attempts (position INTEGER PRIMARY KEY, id UNIQUE, state INTEGER, makings INTEGER, at INTEGER, size INTEGER,
  phase INTEGER, task, env INTEGER, split INTEGER, policy INTEGER, sample, luck, asked INTEGER, turns INTEGER, reward REAL,
  failed INTEGER, error, cut INTEGER, hinted INTEGER, forgotten INTEGER, seconds REAL, cost TEXT, same BLOB);
CREATE INDEX by_state ON attempts (state, phase);
CREATE INDEX by_same ON attempts (same) WHERE same IS NOT NULL;
CREATE TABLE facts (position INTEGER PRIMARY KEY, name UNIQUE, data TEXT);
CREATE TABLE makings (name UNIQUE, count INTEGER);
CREATE TABLE costs (phase UNIQUE, cost TEXT);
"""
FIGURES = """id, task, env, split, policy, phase, sample, luck, asked, turns, reward, failed, error, cut, hinted, forgotten,
  seconds, cost"""


class Named(NamedTuple):
    """A task as far as figures need it."""

    id: str
    env: str
    split: Split


class Counted(NamedTuple):
    """An attempt as it was counted: what it came to and cost, without its texts (`records.Outcome`).

    `length` is the number of its turns; `hinted` says whether it had a hint.
    """

    id: str
    task: Named
    policy: PolicyStamp
    phase: str
    sample: int
    seed: int
    asked: tuple[str, ...]
    length: int
    reward: float
    lost: bool
    error: str
    cut: bool
    hinted: bool
    forgotten: bool
    seconds: float
    said: str

    @property
    def turns(self) -> range:
        """As many as it had turns."""
        return range(self.length)

    @property
    def solved(self) -> bool:
        """Whether it reached the full reward."""
        return not self.lost and self.reward >= SOLVED

    @property
    def cost(self) -> Sequence[float]:
        """What it cost, in the order of COSTS."""
        return loaded(self.said)  # type: ignore[no-any-return]


class Phase(NamedTuple):
    """The attempts of a phase that count: how many, and the seconds that they took."""

    attempts: int
    seconds: float


class Checkpoint:
    """What was counted of `journal`, from the file at `path` if there is one that fits. Safe to use from several threads.

    `done` is the place in the journal up to which it was counted, `until` that up to which there was one when it was opened;
    `facts` are its facts, in the order in which they were first said; `costs` what each phase has cost, with what was made again.
    """

    def __init__(self, path: Path, journal: Segments) -> None:
        self.journal = journal
        self.done, self.until = 0, journal.size()
        self._signs = journal.signs(self.until)
        self.facts: dict[str, Any] = {}
        self.costs: dict[str, list[float]] = {}
        self._path, self._lock = path, threading.RLock()
        self._bodies: OrderedDict[int, Trajectory] = OrderedDict()
        self._raw: dict[int, Trajectory] = {}  # those in whose ids a secret was hidden: the journal has others
        self._names: dict[str, int] = {}
        self._texts: dict[int, str] = {}
        self._stamps: dict[int, PolicyStamp] = {}
        self._asked: dict[int, tuple[str, ...]] = {}
        self._clean, self._is_own = True, False
        self._db = self._opened()
        self._end = _ending(self, self._db)
        self._written = self.done
        self._position: int = self._one("SELECT max(position) FROM attempts") or 0

    # --- counting ---

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """All that is counted meanwhile is counted at once."""
        with self._at_work():
            self._begin_own()
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("COMMIT")

    def keep(self, one: Trajectory, line: Line, same: bytes | None, *, clean: bool = True) -> None:
        """Let an attempt stand in the place of an earlier making of it. `same` finds it again among those of a bare model.

        `line` is where the journal has it; it is `clean` if it says there what it is.
        """
        with self._at_work():
            self._begin_own()
            before = self._one("SELECT makings FROM attempts WHERE id = ?", _said(one.id)) or 0
            if before:
                self._db.execute("DELETE FROM attempts WHERE id = ?", (_said(one.id),))
            self._position += 1
            cost = one.cost
            row = (
                *(self._position, _said(one.id), LOST if one.lost else STANDS, before + 1, line.at, len(line.text)),
                *(self._ref(one.phase), _said(one.task.id), self._ref(one.task.env), self._ref(one.task.split)),
                *(self._ref(json.dumps(one.policy.__dict__)), _number(one.sample), _number(one.seed)),
                *(self._ref(json.dumps(one.asked)), len(one.turns), one.reward, one.lost, _said(one.error) or None, one.cut),
                *(bool(one.hint), one.forgotten, one.seconds, json.dumps(cost), same),
            )
            self._db.execute(f"INSERT INTO attempts VALUES ({', '.join('?' * len(row))})", row)
            sums = self.costs.setdefault(one.phase, [0] * len(cost))
            for place, value in enumerate(cost):
                sums[place] += value
            if not clean:
                self._clean = False
                there = attempt_in(self.journal, line)
                if there is None or there.id != one.id:
                    self._raw[line.at] = one
            self._go_on(line)

    def say(self, name: str, value: Any, line: Line, *, clean: bool = True) -> None:
        """Keep a fact."""
        self.facts[name] = value
        with self._at_work():
            self._begin_own()
            query = "INSERT INTO facts (name, data) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET data = excluded.data"
            self._db.execute(query, (_said(name), json.dumps(value)))
            self._clean = self._clean and clean
            self._go_on(line)

    def skip(self, line: Line) -> None:
        """Nothing is to be counted of a line."""
        with self._at_work():
            self._go_on(line)

    def move(self, ids: Iterable[str], state: int, only: int | None = None) -> None:
        """Let attempts be of that state: those of these ids that are there, with `only` those that were of that one."""
        with self._at_work():
            self._begin_own()
            for id in ids:
                if self.place(id, (STANDS, LOST) if only is None else (only,)):
                    self._position += 1
                    values = (self._position, state, _said(id))
                    self._db.execute("UPDATE attempts SET position = ?, state = ? WHERE id = ?", values)

    def made(self, name: str) -> None:
        """Count a making of what is no attempt, or of an attempt that was stopped."""
        with self._at_work():
            self._begin_own()
            query = "INSERT INTO makings VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET count = count + 1"
            self._db.execute(query, (_said(name),))

    def write(self, *, always: bool = False) -> None:
        """Write down what was counted, where that is worth it and can be done."""
        with self._at_work():
            if self._clean and not self.journal.rewritten and (always or self.done - self._written >= worth(self.done)):
                with contextlib.suppress(OSError, sqlite3.Error, AgentevolveError):
                    self._write()
                    self._written = self.done

    # --- asking ---

    def makings(self, name: str) -> int:
        """How often an attempt or a question was made, stopped ones included."""
        with self._at_work():
            attempts = self._one("SELECT makings FROM attempts WHERE id = ?", _said(name)) or 0
            return int(attempts + (self._one("SELECT count FROM makings WHERE name = ?", _said(name)) or 0))

    def count(self, states: Sequence[int]) -> int:
        """How many attempts are of these states."""
        return sum(self._one("SELECT count(*) FROM attempts WHERE state = ?", state) for state in states)

    def place(self, id: str, states: Sequence[int]) -> tuple[int, int] | None:
        """At which place in the journal the attempt of that id begins, and its size; None if there is none of these states."""
        with self._at_work():
            found = self._db.execute("SELECT at, size, state FROM attempts WHERE id = ?", (_said(id),)).fetchone()
        return found[:2] if found and found[2] in states else None

    def ids(self, states: Sequence[int]) -> Iterator[str]:
        """The ids of the attempts of these states, by state and in the order in which they came to stand."""
        for state in states:
            for (id,) in self._rows("id", "SELECT position FROM attempts WHERE state = ?", (state,)):
                yield _text(id)

    def body(self, id: str, at: int, size: int) -> Trajectory:
        """The attempt whose line is at this place. Raises AgentevolveError where it is not."""
        with self._at_work():
            known = self._raw.get(at) or self._bodies.get(at)
            if known:
                return known
        one = attempt_in(self.journal, Line(at, self.journal.line(at, size)))
        if one is None or one.id != id:
            raise AgentevolveError(f"{self.journal.path}: was changed behind {self._path}; delete this one, it is made again")
        with self._at_work():
            self._bodies[at] = one
            if len(self._bodies) > BODIES:
                self._bodies.popitem(last=False)
        return one

    def phases(self, states: Sequence[int] = (STANDS,)) -> dict[str, Phase]:
        """The phases of which there are attempts of these states."""
        query = f"SELECT phase, count(*), sum(seconds) FROM attempts WHERE state IN ({_marks(states)}) GROUP BY phase"
        with self._at_work():
            return {self._texts[phase]: Phase(count, seconds or 0.0) for phase, count, seconds in self._db.execute(query, states)}

    def of_phases(self, wanted: Callable[[str], bool], states: Sequence[int] = (STANDS,)) -> Iterator[Counted]:
        """The attempts of these states, of the phases that are `wanted`, by state and in their order."""
        refs = [self._names[name] for name in self.costs if wanted(name)]
        query = f"SELECT position FROM attempts WHERE state = ? AND phase IN ({_marks(refs)})"
        for state in states:
            for row in self._rows(FIGURES, query, (state, *refs)):
                yield self._counted(*row)

    def tried(self, phase: str, states: Sequence[int]) -> Iterator[tuple[str, str, str]]:
        """The id, the split and the model of the attempts of these states in a phase, by state and in their order."""
        for state in states if phase in self._names else ():
            query, values = "SELECT position FROM attempts WHERE state = ? AND phase = ?", (state, self._names[phase])
            for id, split, policy in self._rows("id, split, policy", query, values):
                yield _text(id), self._texts[split], self._stamp(policy).model

    def of_ids(self, ids: Iterable[str]) -> dict[str, Counted]:
        """Those of the attempts of these ids that stand or are lost, by id."""
        wanted, found = list(ids), {}
        for first in range(0, len(wanted), MANY):
            some = [_said(id) for id in wanted[first : first + MANY]]
            query = f"SELECT {FIGURES} FROM attempts WHERE state != {GONE} AND id IN ({_marks(some)})"
            with self._at_work():
                for row in self._db.execute(query, some):
                    one = self._counted(*row)
                    found[one.id] = one
        return found

    def like(self, same: bytes) -> str | None:
        """The id of the first attempt that counts and is the same in that."""
        query = f"SELECT id FROM attempts WHERE same = ? AND state = {STANDS} ORDER BY position LIMIT 1"
        found = self._one(query, same)
        return None if found is None else _text(found)

    # --- within ---

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Alone meanwhile. Raises AgentevolveError where the database fails: what was counted then is not written down."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                self._clean = False
                raise AgentevolveError(f"{self.journal.path}: cannot be counted: {error}") from None

    def _one(self, query: str, *values: object) -> Any:
        """The first value that a query finds; None if it finds nothing."""
        with self._at_work():
            found = self._db.execute(query, values).fetchone()
        return found[0] if found else None

    def _rows(self, what: str, positions: str, values: Sequence[object]) -> Iterator[tuple[Any, ...]]:
        """The columns of the rows whose positions the query finds now, in their order, as far as they are still there."""
        with self._at_work():
            found = sorted(position for (position,) in self._db.execute(positions, values))
        for first in range(0, len(found), MANY):
            some = found[first : first + MANY]
            query = f"SELECT {what} FROM attempts WHERE position IN ({_marks(some)}) ORDER BY position"
            with self._at_work():
                rows = self._db.execute(query, some).fetchall()
            yield from rows

    def _counted(self, *row: Any) -> Counted:
        id, task, env, split, policy, phase, sample, luck, asked, turns, reward, failed, error, cut, hinted, old, took, cost = row
        return Counted(  # the quickest way to say it: a report of a large run does so a million times
            _text(id),
            Named(_text(task), self._texts[env], cast("Split", self._texts[split])),
            self._stamp(policy),
            self._texts[phase],
            int(sample),
            int(luck),
            self._ways(asked),
            turns,
            reward,
            failed == 1,
            _text(error) if error else "",
            cut == 1,
            hinted == 1,
            old == 1,
            nan if took is None else took,
            cost,
        )

    def _stamp(self, ref: int) -> PolicyStamp:
        if ref not in self._stamps:
            self._stamps[ref] = PolicyStamp.model_validate(json.loads(self._texts[ref]))
        return self._stamps[ref]

    def _ways(self, ref: int) -> tuple[str, ...]:
        if ref not in self._asked:
            self._asked[ref] = tuple(json.loads(self._texts[ref]))
        return self._asked[ref]

    def _ref(self, text: str) -> int:
        """The number by which a text of which there are few is named."""
        if text not in self._names:
            ref = len(self._names) + 1
            self._db.execute("INSERT INTO names VALUES (?, ?)", (ref, _said(text)))
            self._names[text], self._texts[ref] = ref, text
        return self._names[text]

    def _go_on(self, line: Line) -> None:
        self.done = line.at + len(line.text) + 1

    # --- the file ---

    def _opened(self) -> sqlite3.Connection:
        """The checkpoint that is there, if it fits, to be read alone; else an empty one of this process's own."""
        if self._path.is_file():
            try:
                return self._fitting()
            except (sqlite3.Error, OSError, ValueError, TypeError):  # garbage, of another version, or of another journal
                with contextlib.suppress(OSError):
                    self._path.unlink()
        db = _own()
        db.executescript(TABLES)
        self._is_own = True
        return db

    def _fitting(self) -> sqlite3.Connection:
        address = f"{self._path.resolve().as_uri()}?mode=ro&immutable=1"  # it is replaced, never changed
        db = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
        try:
            if (
                db.execute("PRAGMA user_version").fetchone()[0] != VERSION
                or db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok"
            ):
                raise ValueError("of another version, or damaged")
            done, signs = db.execute("SELECT done, signs FROM counted").fetchone()
            if json.loads(signs) != [list(one) for one in self.journal.signs(done)]:
                raise ValueError("of another journal")
            names = {_text(text): ref for ref, text in db.execute("SELECT ref, text FROM names")}
            costs = {_text(phase): json.loads(cost) for phase, cost in db.execute("SELECT phase, cost FROM costs")}
            said = db.execute("SELECT name, data FROM facts ORDER BY position")
            facts = {_text(name): loaded(data) for name, data in said}
        except BaseException:
            db.close()
            raise
        self.done, self.costs, self.facts = done, costs, facts
        self._names, self._texts = names, {ref: text for text, ref in names.items()}
        return db

    def _begin_own(self) -> None:
        """Count in a database of this process's own from now on."""
        if not self._is_own:
            own = _own()
            self._db.backup(own)
            self._db.close()
            self._db, self._is_own = own, True
            self._end.detach()
            self._end = _ending(self, own)

    def _write(self) -> None:
        for left in self._path.parent.glob(f"{self._path.name}.*.partial"):
            if left.stat().st_mtime < time.time() - OLD:
                left.unlink()
        sums = [(_said(phase), json.dumps(cost)) for phase, cost in self.costs.items()]
        signs = json.dumps(self.journal.signs(self.done))
        with self.counting():
            self._db.execute("DELETE FROM counted")
            self._db.execute("INSERT INTO counted VALUES (?, ?)", (self.done, signs))
            self._db.execute("DELETE FROM costs")
            self._db.executemany("INSERT INTO costs VALUES (?, ?)", sums)
        scratch = self._path.with_name(f"{self._path.name}.{os.getpid()}.partial")
        try:
            _copy(self._db, scratch)
            if self.journal.signs(self.until) == self._signs:  # else it was rewritten since it was read
                scratch.replace(self._path)
        finally:
            scratch.unlink(missing_ok=True)


def worth(done: int) -> float:
    """How many more bytes of a journal, of which so many were counted, are worth a new checkpoint."""
    return max(LEAST, done * SHARE)


class _Attempt(BaseModel):
    """A journal's line with an attempt."""

    kind: Literal["trajectory"]
    data: Trajectory


def attempt_in(journal: Segments, line: Line) -> Trajectory | None:
    """The attempt in a line; None where it is none, or no line of a journal."""
    try:
        return _Attempt.model_validate_json(line.text).data
    except ValidationError:  # which pydantic's parser says of half a surrogate pair, too
        pass
    try:
        return _Attempt.model_validate(journal.parse(line)).data
    except (AgentevolveError, ValidationError):
        return None


def _ending(counted: Checkpoint, db: sqlite3.Connection) -> weakref.finalize[[], Checkpoint]:
    """Close the database when nobody holds what was counted any more; a process that ends needs not."""
    end = weakref.finalize(counted, db.close)
    end.atexit = False
    return end


def _own() -> sqlite3.Connection:
    """An empty database that ends with the process: in memory, and in a file that nobody sees when it grows."""
    db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    for setting in ("cache_size = -65536", "synchronous = OFF", "journal_mode = MEMORY"):
        db.execute(f"PRAGMA {setting}")
    return db


def _copy(db: sqlite3.Connection, path: Path) -> None:
    """Write the database into a file, and wait until it is on disk."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as copy:
        for setting in ("synchronous = OFF", "journal_mode = OFF"):
            copy.execute(f"PRAGMA {setting}")
        db.backup(copy)
        copy.execute(f"PRAGMA user_version = {VERSION}")
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _said(text: str) -> str | bytes:
    """A text as SQLite takes it: one with half a surrogate pair as bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def _text(said: str | bytes) -> str:
    return said if isinstance(said, str) else said.decode("utf-8", "surrogatepass")


def _number(value: int) -> int | str:
    """An integer as SQLite takes it: a large one in digits."""
    return value if -FAR <= value < FAR else str(value)


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
