"""The index of a memory: for each (env, kind) one vector per distinct key, scanned, or found by Chroma's graph if there are many.

It is a cache of the journal: `rows.py` holds the vectors, `graph.py` a graph of those shelves that are too large to be scanned.
A scan is exact, needs nothing that would have to be built and does not hang on the index's history; up to SCANNED rows it is
also no slower than a graph. Beyond, the graph finds the nearest of the first rows, and the rows since are scanned.
A shelf is opened when it is first asked, so that others cost nothing. Whoever owns the memory writes; who only reads has in
its own memory what the files lack.
Equal keys are one vector, because a graph loses most of many equal vectors (measured: 0.70 of the nearest neighbours found
among 4,000 vectors of 40 values).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from agentevolve.memory.embed import Embedder
from agentevolve.memory.graph import STEP, Graph, grow, view
from agentevolve.memory.ledger import Shelf
from agentevolve.memory.rows import Rows
from agentevolve.memory.seals import CLOSED, seal, sealed, stamp
from agentevolve.protocols import AgentevolveError

if TYPE_CHECKING:
    from agentevolve.memory.embed import Vectors

BATCH = 1_000  # keys that are embedded and written at a time
SCANNED = 30_000  # rows of 384 up to which a shelf is scanned: 5 ms, as long as a graph of so many takes
SEARCHED = 1_000  # nearest rows up to which a graph is asked; for more a scan is quicker, and exact
VIEWS, FILE = "views", ".vectors"
FULL = 1_000_000  # bytes: with so few left a disk is full


class Index:
    """The index in `folder`, for who only reads it, or for its one owner, whose `shelves` are all that stays there.

    `nearest` may be called from several threads, also during `add`.
    """

    def __init__(self, folder: Path, embedder: Embedder, shelves: Collection[Shelf] | None = None) -> None:
        self._folder, self._embedder, self._owned = folder, embedder, shelves is not None
        self._rows: dict[str, Rows] = {}
        self._graphs: dict[str, Graph | None] = {}
        self._lock = threading.RLock()
        said = sealed(folder) or {}
        self._stamps = said["files"] if said.get("embedder") == embedder.identity else {}
        with told(folder):
            if shelves is not None:
                _prepare(folder, shelves)
                self._views, self._private = folder / VIEWS, None
            else:
                self._private = TemporaryDirectory(prefix="agentevolve-", ignore_cleanup_errors=True)
                self._views = Path(self._private.name)

    def hold(self, shelf: Shelf, keys: Mapping[str, str]) -> None:
        """Make the index hold exactly `keys` ({key id: key}) of the shelf."""
        name = collection_name(shelf)
        with self._lock, told(self._folder):
            rows = self._opened(name)
            if gone := {id for id in rows.ids if id not in keys}:
                self._drop(name)
                self._rows[name] = rows.without(gone)
        self.add(shelf, keys)

    def add(self, shelf: Shelf, keys: Mapping[str, str]) -> None:
        """Embed and add `keys` ({key id: key}); what is there already is left as it is."""
        name = collection_name(shelf)
        with self._lock, told(self._folder):
            rows = self._opened(name)
        new = [id for id in keys if id not in rows]
        for start in range(0, len(new), BATCH):
            ids = new[start : start + BATCH]
            vectors = self._embedder.embed([keys[id] for id in ids])
            with self._lock, told(self._folder):
                rows.extend(ids, vectors)
        with self._lock, told(self._folder):
            self._search(name, rows)

    def vectors(self, shelf: Shelf, ids: Sequence[str]) -> Vectors:
        """The vectors of the shelf's ids, in their order, shape (len(ids), dim)."""
        with told(self._folder):
            return self._rows[collection_name(shelf)].of(ids)

    def nearest(self, shelf: Shelf, vector: Vectors, n: int) -> list[tuple[str, float]]:
        """The `n` (or all) key ids nearest to `vector` (dim,), nearest first, with their cosine similarity to six decimals."""
        name = collection_name(shelf)
        rows = self._rows.get(name)
        if rows is None:
            return []
        with told(self._folder):
            found: list[str] = []
            after = 0
            if n <= SEARCHED:
                with self._lock:
                    if graph := self._graphs.get(name):
                        found, after = graph.nearest(vector, n), graph.size
            hits = rows.scored(rows.places(found), vector) + rows.nearest(vector, n, after=after)
        hits = sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:n]
        return [(rows.ids[place], round(near, 6)) for place, near in hits]

    def ids(self) -> dict[str, set[str]]:
        """The key ids that the files hold, by the shelf's name."""
        with told(self._folder):
            names = [path.name.removesuffix(FILE) for path in self._folder.glob(f"*{FILE}")]
            return {name: set(self._read(name).ids) for name in names}

    def close(self) -> None:
        """Let go of the files. An owner writes down how they are left; where that cannot be written, they are read row by row."""
        with self._lock, contextlib.suppress(Unusable), told(self._folder):
            for name in list(self._graphs):
                self._let_go(name)
            if self._private:
                self._private.cleanup()
            else:
                _remove(self._views)
                left = self._stamps | {name: stamp(rows.path) for name, rows in self._rows.items()}
                seal(self._folder, {"embedder": self._embedder.identity, "files": left})

    def _opened(self, name: str) -> Rows:
        if name not in self._rows:
            self._rows[name] = self._read(name)
        return self._rows[name]

    def _read(self, name: str) -> Rows:
        path = self._folder / f"{name}{FILE}"
        trusted = bool(now := stamp(path)) and self._stamps.get(name) == now
        return Rows(path, self._embedder.identity, owned=self._owned, trusted=trusted)

    def _search(self, name: str, rows: Rows) -> None:
        """Open the graph of a shelf that is too large to be scanned; an owner makes one, or lets it grow, first."""
        if len(rows) <= SCANNED:
            return
        folder = self._folder / name
        if name not in self._graphs:
            self._graphs[name] = self._view(folder, rows)
        graph = self._graphs[name]
        held = graph.size if graph else 0
        if self._owned and len(rows) - held >= STEP:
            self._let_go(name)
            grow(folder, rows, held)
            self._graphs[name] = view(folder, rows, self._views)

    def _view(self, folder: Path, rows: Rows) -> Graph | None:
        with contextlib.suppress(Unusable), told(self._folder):
            return view(folder, rows, self._views)
        return None

    def _let_go(self, name: str) -> None:
        if graph := self._graphs.pop(name, None):
            graph.close()

    def _drop(self, name: str) -> None:
        self._let_go(name)
        if self._owned:
            _remove(self._folder / name)


class Unusable(AgentevolveError):
    """What an index is that Chroma, its database or the disk fails at: this machine's to mend, not the attempt's fault."""


@contextlib.contextmanager
def told(folder: Path) -> Iterator[None]:
    """Raise whatever goes wrong within as Unusable: one line that names the index and says what to do."""
    try:
        yield
    except (AgentevolveError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of Chroma's is no Exception
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise Unusable(f"{folder}: the index cannot be used: {why}; what is remembered is kept, {_advice(folder)}") from None


def lying(folder: Path, identity: str, shelf: Shelf) -> Rows:
    """The vectors of a shelf as the index in `folder` has them on disk, for who only looks: nothing is locked or written.

    `identity` is the embedding model's, whose vectors alone are read.
    """
    _check(folder)
    name, said = collection_name(shelf), sealed(folder) or {}
    path = folder / f"{name}{FILE}"
    left = said["files"].get(name) if said.get("embedder") == identity else None
    return Rows(path, identity, owned=False, trusted=bool(now := stamp(path)) and left == now)


def _advice(folder: Path) -> str:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    full = shutil.disk_usage(there).free < FULL
    return "but the disk is full: make room" if full else "make the index anew with: agentevolve memory rebuild MEMORY"


def remove_index(folder: Path) -> None:
    """Delete the index folder, and nothing that it might be a link to."""
    _check(folder)
    _remove(folder)


def collection_name(shelf: Shelf) -> str:
    """A name Chroma allows (3 to 512 of [a-zA-Z0-9._-]), readable, and different for every (env, kind)."""
    env, kind = shelf
    slug = re.sub(r"[^a-z0-9]+", "-", f"{kind} {env}".lower())[:48].strip("-")
    return f"{slug}-{hashlib.sha256(repr(shelf).encode()).hexdigest()[:10]}"


def _prepare(folder: Path, shelves: Collection[Shelf]) -> None:
    """Make the folder, and leave nothing in it but what is of these shelves."""
    _check(folder)
    if not folder.is_dir():
        _remove(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = {CLOSED, *(name for shelf in shelves for name in (collection_name(shelf), collection_name(shelf) + FILE))}
    for path in folder.iterdir():
        if path.name not in names:
            _remove(path)


def _check(folder: Path) -> None:
    if folder.is_symlink():
        raise AgentevolveError(f"{folder}: is a link; the index of a memory must be a folder of its own")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
