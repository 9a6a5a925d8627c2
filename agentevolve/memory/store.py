"""A memory on disk: entries are appended to its journal, and recalled by the nearness of their keys.

One process writes it (`open_memory`); any number recall from it meanwhile (`read_memory`), from the same files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from agentevolve.memory.embed import Embedder, MiniLM, load_embedder
from agentevolve.memory.folder import ABOUT, INDEX, JOURNAL, about, check_model, prepare
from agentevolve.memory.ledger import Ledger, Shelf
from agentevolve.memory.ranking import Words, differing, fused
from agentevolve.protocols import AgentevolveError
from agentevolve.records import NEAREST, Entry, Ranking, Usage
from agentevolve.run.folder import VIEW
from agentevolve.run.lock import LOCK, Lock
from agentevolve.run.spans import span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agentevolve.memory.embed import Vectors
    from agentevolve.memory.index import Index


RESTORED = "/restored/"  # in the id of what was added anew
POOL = 8  # entries for each one that is wanted, of which the ranking chooses


class EntryMemory:
    """An open memory: `open_memory` gives one to write to, `read_memory` one to read; `close` gives back what it holds.

    Safe to use from several threads. New entries are on disk when `add` returns and indexed at the next recall, so that
    neither `add` nor `entries` nor `stats` loads the index or the embedding model.
    """

    def __init__(self, folder: Path, embedder: Embedder, lock: Lock | None) -> None:
        self.folder = folder
        self._embedder = embedder
        self._ledger = Ledger(folder / JOURNAL)
        self._owned, self._closed = lock is not None, False
        self._held = ExitStack()  # the folder's lock
        self._lock = threading.RLock()
        self._index: Index | None = None
        # what is to be indexed; None: all of the shelf, which has not been asked yet or changed as a whole
        self._pending: dict[Shelf, dict[str, str] | None] = dict.fromkeys(self._ledger.names())
        self._words: dict[Shelf, Words] = {}
        self._said: dict[tuple[Shelf, ...], tuple[dict[str, Entry], Words]] = {}  # what is searched, until something changes
        if lock:
            self._held.enter_context(lock)

    def add(self, entries: Sequence[Entry]) -> None:
        """Append entries; an id that is already there, retired or not, is left as it is.

        What says the same as an entry that is there is kept as a further key and further sources of that one.
        """
        with self._lock, span("create_memory", memory=self.folder, entries=entries):
            self._check(writing=True)
            for shelf, keys in self._ledger.add(entries).items():
                known = self._pending.get(shelf, {})
                self._pending[shelf] = None if keys is None or known is None else known | keys
            self._said.clear()

    def retire(self, id: str, round: int, why: str) -> None:
        """From `round` on, do not recall the entry. Raises AgentevolveError for an unknown id; the first retirement stands."""
        self._check(writing=True)
        self._ledger.retire(id, round, why)
        self._said.clear()

    def quarantine(self, id: str, round: int, why: str) -> None:
        """From `round` on, until it is restored, do not recall the entry, nor what says the same again.

        Raises AgentevolveError for an unknown id, and for more than 500 characters of `why`.
        """
        self._check(writing=True)
        self._ledger.quarantine(id, round, why)
        self._said.clear()

    def annotate(self, id: str, text: str) -> None:
        """Keep the user's own words on an entry, in the place of those before; empty: none. They are never recalled.

        Raises AgentevolveError for an unknown id, and for more than 2,000 characters.
        """
        self._check(writing=True)
        self._ledger.annotate(id, text)

    def restore(self, id: str, round: int) -> str:
        """From `round` on, or from its retirement, recall again what an entry says; return the id that it now has.

        One in quarantine is itself again. A retirement stands, so that earlier rounds stay as they were: what is told is added
        anew. Raises AgentevolveError for an entry that is neither.
        """
        with self._lock:
            entry = self.get(id)
            gone = self._ledger.gone(entry.id) if entry else None
            if entry and gone is None and self._ledger.quarantined(entry.id):
                self._check(writing=True)
                self._ledger.release(entry.id, round)
                self._said.clear()
                return entry.id
            if entry is None or gone is None:
                why = "no such entry was retired or is in quarantine"
                raise AgentevolveError(f"memory {self.folder}: cannot restore {id!r}: {why}")
            base = entry.id.partition(RESTORED)[0]
            new = next(one for one in (f"{base}{RESTORED}{number}" for number in count(1)) if not self.used(one))
            self.add([entry.model_copy(update={"id": new, "round": max(round, gone[0])})])
            return new

    def note(self, gains: Mapping[str, float], round: int) -> None:
        """Write down what entries were worth as of `round`: the gain of each, in [-1, 1]."""
        self._check(writing=True)
        self._ledger.note(gains, round)

    def get(self, id: str) -> Entry | None:
        """The entry of that id, retired or not; also by the id of what said the same again."""
        return self._ledger.get(id)

    def used(self, id: str) -> bool:
        """Whether there was ever an entry of that id, be it one that was forgotten: none can be added under it."""
        return self._ledger.used(id)

    def entries(self, as_of: int | None = None, kind: str | None = None, env: str | None = None) -> list[Entry]:
        """The entries that are there now, or as of a round (added and not retired at a round <= as_of), oldest first."""
        return self._ledger.entries(as_of, kind, env)

    def recall(
        self,
        query: str,
        *,
        env: str,
        k: int,
        as_of: int | None = None,
        kind: str = "demo",
        skip: Callable[[Entry], bool] | None = None,
        ranking: Ranking = NEAREST,
    ) -> list[tuple[Entry, float]]:
        """The k entries of `env` and `kind` nearest to `query`, nearest first, with their cosine similarity in [-1, 1].

        What all keys of a shelf share is not compared. Entries that are equally near come in the order of their ids, so the
        same memory gives the same answer; those that `skip` says yes to are passed over. By a `ranking` with weights, the k best
        of the nearest 8 k come in the order in which they are taken. The search is exact among up to 30,000 keys of one `env` and
        `kind`; among more a graph finds nearly all of the nearest.
        """
        shelf = env, kind
        index = self._ready([shelf])
        asked = self._ledger.asked(query, env, as_of)
        vector = self._embedder.embed([asked])[0]
        weighed = ranking.difference or ranking.credit or ranking.recency
        wanted = POOL * k if weighed or ranking.words else k
        found = self._nearest(index, shelf, vector, wanted, as_of, skip)
        if ranking.words and found:
            found = self._with_words(index, shelf, asked, vector, found, wanted, as_of, skip)
        return self._ranked(index, shelf, found, k, as_of, ranking) if weighed else found[:k]

    def search(self, query: str, k: int, *, kind: str | None = None, env: str | None = None) -> list[tuple[Entry, float]]:
        """The k entries found for `query` over all environments and kinds, or some, with the cosine similarity of their keys.

        Nearness of the keys by meaning and the words of keys and texts (BM25) are fused by ranks.
        """
        shelves = self._ledger.names(kind, env)
        index, vector = self._ready(shelves), self._embedder.embed([query])[0]
        near = [hit for shelf in shelves for hit in self._nearest(index, shelf, vector, POOL * k, None)]
        near = sorted(near, key=_nearest_first)[: POOL * k]
        here, said = self._searched(tuple(shelves))
        words = said.ranked(query, POOL * k)
        known = {entry.id: nearness for entry, nearness in near}
        for shelf in shelves:
            new = [here[id] for id in words if id not in known and (here[id].env, here[id].kind) == shelf]
            known |= self._similarity(index, shelf, new, vector)
        return [(here[id], known[id]) for id in fused([entry.id for entry, _ in near], words)[:k]]

    def _searched(self, shelves: tuple[Shelf, ...]) -> tuple[dict[str, Entry], Words]:
        """The shelves' entries by their ids, and the words of their keys and texts."""
        with self._lock:
            if shelves not in self._said:
                here = {entry.id: entry for env, kind in shelves for entry in self._ledger.entries(None, kind, env)}
                self._said[shelves] = here, Words({entry.id: f"{entry.key}\n{entry.text}" for entry in here.values()})
            return self._said[shelves]

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """`texts` as the memory's embedding model sees them: unit vectors, shape (len(texts), dim); products are cosines."""
        return self._embedder.embed(texts)

    def cost(self, *texts: str) -> Usage:
        """What embedding the texts costs."""
        return self._embedder.cost(*texts)

    def stats(self) -> dict[str, Any]:
        """Counts by kind, env and round, the retired ones, the embedding model, and the folder's size in bytes."""
        return _stats(self.folder, self._ledger)

    def rebuild(self) -> int:
        """Delete the index and build it from the journal; return how many distinct keys it holds."""
        from agentevolve.memory.index import remove_index, told

        with self._lock:
            self._check(writing=True)
            if self._index:
                self._index.close()
                self._index = None
            with told(self.folder / INDEX):
                remove_index(self.folder / INDEX)
            shelves = self._ledger.names()
            self._pending = dict.fromkeys(shelves)
            return sum(len(ids) for ids in self._ready(shelves).ids().values())

    def close(self) -> None:
        """Write the index out and let other processes write to the memory. Closing twice is allowed."""
        with self._lock, self._held:
            index, self._index = self._index, None
            if index:
                index.close()
            if self._owned and not self._closed:
                self._ledger.vouch()
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, *, writing: bool = False) -> None:
        if self._closed:
            raise AgentevolveError(f"memory {self.folder} was closed")
        if writing and not self._owned:
            raise AgentevolveError(f"memory {self.folder}: cannot write: it was opened for reading only")

    def _ready(self, shelves: Sequence[Shelf]) -> Index:
        """The index, with all that these shelves are to hold."""
        from agentevolve.memory.index import Index

        with self._lock:
            self._check()
            if self._index is None:
                self._index = Index(self.folder / INDEX, self._embedder, self._ledger.names() if self._owned else None)
            for shelf in [one for one in shelves if one in self._pending]:
                keys = self._pending[shelf]
                if keys is None:
                    self._index.hold(shelf, self._ledger.shelf(shelf))
                else:
                    self._index.add(shelf, keys)
                self._words.pop(shelf, None)
                del self._pending[shelf]
            return self._index

    def _nearest(
        self,
        index: Index,
        shelf: Shelf,
        vector: NDArray[np.float32],
        k: int,
        as_of: int | None,
        skip: Callable[[Entry], bool] | None = None,
    ) -> list[tuple[Entry, float]]:
        n = max(16, 2 * k)
        while k > 0:
            hits = index.nearest(shelf, vector, n)
            near: dict[str, tuple[Entry, float]] = {}  # an entry with several keys is as near as the nearest of them
            for id, nearness in hits:
                for entry in self._ledger.under(shelf, id, as_of):
                    if entry.id not in near and not (skip and skip(entry)):
                        near[entry.id] = entry, nearness
            found = sorted(near.values(), key=_nearest_first)
            # what lies beyond the last hit may be as near as that hit, and then come before it by its id
            settled = len(found) >= k and found[k - 1][1] > hits[-1][1]
            if settled or len(hits) < n:
                return found[:k]
            n *= 2
        return []

    def _ranked(
        self, index: Index, shelf: Shelf, found: list[tuple[Entry, float]], k: int, as_of: int | None, ranking: Ranking
    ) -> list[tuple[Entry, float]]:
        """The k of those found that are best by the ranking, in the order in which they are taken."""
        if not found:
            return []
        newest = max(entry.round for entry, _ in found)
        worth = [
            (1 - place / len(found) if ranking.words else near)
            + ranking.credit * self._ledger.gain(entry.id, as_of)
            + ranking.recency * 0.5 ** (newest - entry.round)
            for place, (entry, near) in enumerate(found)
        ]
        rows = self._vectors(index, shelf, [entry for entry, _ in found])
        return [found[place] for place in differing(worth, rows, k, ranking.difference)]

    def _with_words(
        self,
        index: Index,
        shelf: Shelf,
        asked: str,
        vector: NDArray[np.float32],
        near: list[tuple[Entry, float]],
        n: int,
        as_of: int | None,
        skip: Callable[[Entry], bool] | None,
    ) -> list[tuple[Entry, float]]:
        """The entries near by meaning or by words, in the order of both rankings fused."""
        with self._lock:
            if shelf not in self._words:
                self._words[shelf] = Words(self._ledger.shelf(shelf))
        by_words: dict[str, Entry] = {}
        for id in self._words[shelf].ranked(asked, max(n, 16)):
            by_words |= {one.id: one for one in self._ledger.under(shelf, id, as_of) if not (skip and skip(one))}
        known = {entry.id: (entry, nearness) for entry, nearness in near}
        new = [one for one in by_words.values() if one.id not in known]
        similar = self._similarity(index, shelf, new, vector)
        known |= {one.id: (one, similar[one.id]) for one in new}
        return [known[id] for id in fused([entry.id for entry, _ in near], list(by_words))]

    def _similarity(self, index: Index, shelf: Shelf, entries: Sequence[Entry], vector: NDArray[np.float32]) -> dict[str, float]:
        """The cosine of each entry's own key to `vector`, by its id."""
        rows = self._vectors(index, shelf, entries)
        return {one.id: round(float(row @ vector), 6) for one, row in zip(entries, rows, strict=True)}

    def _vectors(self, index: Index, shelf: Shelf, entries: Sequence[Entry]) -> NDArray[np.float32]:
        return index.vectors(shelf, [self._ledger.indexed(shelf, one) for one in entries])


def open_memory(folder: Path, *, create: bool = True, embedder: Embedder | None = None) -> EntryMemory:
    """Open the memory in `folder` for this process to write to; with `create`, a missing or empty folder becomes one.

    The embedder is the one that the memory was made with, MiniLM for a new one, unless another is given. Raises AgentevolveError
    when the folder holds something else, was made with another embedding model, is damaged, or is open elsewhere.
    """
    embedder = embedder or made_with(folder)
    lock = prepare(folder, embedder, create)
    try:
        check_model(folder, embedder)
        return EntryMemory(folder, embedder, lock)
    except BaseException:
        lock.release()
        raise


def read_memory(folder: Path, *, embedder: Embedder | None = None) -> EntryMemory:
    """Open the memory in `folder` to recall from it as it is now: nothing is locked or written there, nobody locked out.

    Raises AgentevolveError as `open_memory` does, but for one that is open elsewhere.
    """
    embedder = embedder or made_with(folder)
    check_model(folder, embedder)
    return EntryMemory(folder, embedder, None)


def made_with(folder: Path) -> Embedder:
    """The embedder that the memory in `folder` was made with; MiniLM where there is none yet."""
    return load_embedder(about(folder)["embedding_model"]) if (folder / ABOUT).is_file() else MiniLM()


def read_ledger(folder: Path) -> Ledger:
    """What the memory's journal says, retired entries included: without index or model, also while another process writes."""
    about(folder)
    return Ledger(folder / JOURNAL)


def read_entries(folder: Path, *, as_of: int | None = None, kind: str | None = None, env: str | None = None) -> list[Entry]:
    """The entries of the memory in `folder`, as `EntryMemory.entries` gives them, without opening it."""
    return read_ledger(folder).entries(as_of, kind, env)


def read_stats(folder: Path) -> dict[str, Any]:
    """The figures of the memory in `folder`, as `EntryMemory.stats` gives them, without opening it."""
    return _stats(folder, read_ledger(folder))


def _nearest_first(hit: tuple[Entry, float]) -> tuple[float, str]:
    return -hit[1], hit[0].id


def _stats(folder: Path, ledger: Ledger) -> dict[str, Any]:
    sizes = [_size(path) for path in folder.rglob("*") if path.name != LOCK and not path.name.startswith(VIEW)]
    return ledger.stats() | {"embedding_model": about(folder)["embedding_model"], "bytes": sum(sizes)}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:  # its owner has just deleted it
        return 0
