"""The Chroma index of a memory: one collection per (env, kind), holding one vector per distinct key.

It is a cache of the journal. Chroma writes its graph files in place, so a killed writer can leave files that load and then answer
wrongly or crash the process; an index is therefore trusted only if it was closed and its files are still those, and otherwise
built anew. The file `closed` says so: the name, size and time of each file, and a digest of what each collection holds, so that
opening reads neither the files nor the ids; it is signed with the user's key, so that an index from elsewhere is never opened.
Two openers of one folder can hang it or ruin it: who only reads opens a copy of a trusted index, or builds one of his own.
Equal keys are one vector, because a graph loses most of many equal vectors (measured: 0.70 of the nearest neighbours found
among 4,000 vectors of 40 values). Nothing is filtered by metadata, because that costs time linear in the collection.
The graph is approximate, and a graph that grew answers a little otherwise than one built at once; a small collection is
therefore scanned, so that what an agent recalls does not hang on the index's history.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentevolve.memory.embed import Embedder
from agentevolve.memory.ledger import Shelf
from agentevolve.memory.provenance import signed
from agentevolve.protocols import AgentevolveError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# measured on 4,000 random vectors: Chroma's defaults (100, 100, 16) find 0.81 of the 8 nearest, these all of them, in 1.6 ms
HNSW = {"space": "cosine", "ef_construction": 200, "ef_search": 400, "max_neighbors": 32}
BATCH = 1_000  # rows per call; Chroma takes at most some 5,000
SCANNED = 2_000  # vectors up to which a collection is scanned: 6 MB and below a millisecond
CLOSED = "closed"
FULL = 1_000_000  # bytes: with so few left a disk is full


class Index:
    """The index in `folder`. One process at a time; `nearest` may be called from several threads, also during `add`."""

    def __init__(self, folder: Path, embedder: Embedder) -> None:
        self._folder = folder
        self._embedder = embedder
        self._collections: dict[str, Any] = {}
        self._held: dict[str, set[str]] = {}
        self._scanned: dict[str, tuple[list[str], NDArray[np.float64]]] = {}
        self._lock = threading.Lock()
        with told(folder):
            self._client = _client(folder)
            (folder / CLOSED).unlink(missing_ok=True)

    def sync(self, shelves: Mapping[Shelf, Mapping[str, str]], digests: Mapping[str, str]) -> None:
        """Make the index hold exactly `shelves`: {(env, kind): {key id: key}}.

        A collection that is known to hold what it should, by its digest, is not read.
        """
        with told(self._folder):
            self._collections = {item.name: item for item in self._client.list_collections()}
            for name in set(self._collections) - {collection_name(shelf) for shelf in shelves}:
                self._client.delete_collection(name)
                del self._collections[name]
        for shelf, keys in shelves.items():
            with told(self._folder):
                collection = self._collection(shelf)
                known = digests.get(collection.name) == _digest(keys) and collection.count() == len(keys)
                self._held[collection.name] = set(keys if known else collection.get(include=[])["ids"])
            self.hold(shelf, keys)

    def hold(self, shelf: Shelf, keys: Mapping[str, str]) -> None:
        """Make the shelf's collection hold exactly `keys` ({id: text})."""
        with self._lock, told(self._folder):
            collection = self._collection(shelf)
            held = self._held.setdefault(collection.name, set())
            gone = sorted(held - keys.keys())
            for unknown in _batches(gone):
                collection.delete(ids=unknown)
            held.difference_update(gone)
            if gone:
                self._scanned.pop(collection.name, None)
        self.add(shelf, keys)

    def vectors(self, shelf: Shelf, ids: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of the shelf's ids, in their order, shape (len(ids), dim)."""
        import numpy as np

        with told(self._folder):
            asked = list(dict.fromkeys(ids))  # entries may share a key
            found = self._collection(shelf).get(ids=asked, include=["embeddings"]) if ids else {"ids": [], "embeddings": []}
        rows = dict(zip(found["ids"], found["embeddings"], strict=True))
        return np.asarray([rows[id] for id in ids], np.float32)

    def add(self, shelf: Shelf, keys: Mapping[str, str]) -> None:
        """Embed and add `keys` ({key id: key}); what is there already is left as it is."""
        with told(self._folder):
            collection = self._collection(shelf)
        held = self._held.setdefault(collection.name, set())
        for ids in _batches([id for id in keys if id not in held]):
            vectors = self._embedder.embed([keys[id] for id in ids])
            with self._lock, told(self._folder):
                collection.upsert(ids=ids, embeddings=vectors)
                held.update(ids)
                if collection.name in self._scanned:
                    self._scanned[collection.name] = _extended(self._scanned[collection.name], ids, vectors)

    def nearest(self, shelf: Shelf, vector: NDArray[np.float32], n: int) -> list[tuple[str, float]]:
        """The `n` (or all) key ids nearest to `vector` (dim,), nearest first, with their cosine similarity to six decimals."""
        collection = self._collections.get(collection_name(shelf))
        if collection is None:
            return []
        size = len(self._held[collection.name])
        with told(self._folder):
            if size <= max(n, SCANNED):
                return self._scan(collection, vector, n)
            found = collection.query(query_embeddings=[vector], n_results=n, include=["distances"])
        return [(id, round(1.0 - float(far), 6)) for id, far in zip(found["ids"][0], found["distances"][0], strict=True)]

    def _scan(self, collection: Any, vector: NDArray[np.float32], n: int) -> list[tuple[str, float]]:
        import numpy as np

        with self._lock:
            if collection.name not in self._scanned:
                held = collection.get(include=["embeddings"])
                self._scanned[collection.name] = _extended(([], np.zeros((0, len(vector)))), held["ids"], held["embeddings"])
            ids, vectors = self._scanned[collection.name]
        # not `@`: its thread pool, called from several rollout workers on few cores, took 100 ms where this takes 1
        near = np.einsum("ij,j->i", vectors, vector.astype(np.float64))
        return [(ids[row], round(float(near[row]), 6)) for row in np.argsort(-near, kind="stable")[:n]]

    def ids(self) -> dict[str, set[str]]:
        """The key ids that are indexed, by collection name."""
        with told(self._folder):
            return {collection.name: set(collection.get(include=[])["ids"]) for collection in self._client.list_collections()}

    def close(self) -> None:
        """Write everything out, and mark the index as whole; one that cannot be written is not, and is built anew next time."""
        with contextlib.suppress(Unusable), told(self._folder):
            self._client.close()
            seal(self._folder, {name: _digest(ids) for name, ids in self._held.items()})

    def abandon(self) -> None:
        """Let go of the files without marking them as whole."""
        with contextlib.suppress(Unusable), told(self._folder):
            self._client.close()

    def _collection(self, shelf: Shelf) -> Any:
        name = collection_name(shelf)
        if name not in self._collections:
            self._collections[name] = self._client.create_collection(name, configuration={"hnsw": HNSW}, embedding_function=None)
        return self._collections[name]


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


def _advice(folder: Path) -> str:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    full = shutil.disk_usage(there).free < FULL
    return "but the disk is full: make room" if full else "make the index anew with: agentevolve memory rebuild MEMORY"


def open_index(folder: Path, embedder: Embedder, shelves: Mapping[Shelf, Mapping[str, str]]) -> Index:
    """The index in `folder`, brought up to date with `shelves`; a new one where none is there that can be trusted and read.

    Raises Unusable when a new one cannot be made either.
    """
    if (digests := _trusted(folder)) is not None:
        with contextlib.suppress(Unusable):  # whole files that this Chroma cannot read (another version's) are only a cache
            return _opened(folder, embedder, shelves, digests)
    with told(folder):
        remove_index(folder)
    return _opened(folder, embedder, shelves, {})


def snapshot(index: Path, folder: Path) -> None:
    """Copy a closed index to `folder`. If its owner opens it meanwhile, a file has another time, and the copy is not trusted."""
    with contextlib.suppress(OSError):
        for path in _files(index) if (index / CLOSED).is_file() else ():
            copy = folder / path.relative_to(index)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)


def _opened(folder: Path, embedder: Embedder, shelves: Mapping[Shelf, Mapping[str, str]], digests: Mapping[str, str]) -> Index:
    index = Index(folder, embedder)
    try:
        index.sync(shelves, digests)
    except BaseException:
        index.abandon()
        raise
    return index


def seal(folder: Path, digests: Mapping[str, str]) -> None:
    """Say of a closed index what its files are and, by collection name, the digest of the ids that each holds."""
    said = json.dumps({"files": _stamps(folder), "digests": dict(digests)}, sort_keys=True)
    (folder / CLOSED).write_text(f"{signed(said)}\n{said}\n", "utf-8")


def _trusted(folder: Path) -> dict[str, str] | None:
    """The digests of an index that this user closed and whose files nobody has touched since; None for any other."""
    try:
        signature, _, said = (folder / CLOSED).read_text("utf-8").removesuffix("\n").partition("\n")
        if not hmac.compare_digest(signature.encode(), signed(said).encode()):
            return None
        told_of = json.loads(said)
        return dict(told_of["digests"]) if told_of["files"] == _stamps(folder) else None
    except (OSError, ValueError):
        return None


def remove_index(folder: Path) -> None:
    """Delete the index folder, and nothing that it might be a link to."""
    if folder.is_symlink():
        raise AgentevolveError(f"{folder}: is a link; the index of a memory must be a folder of its own")
    if folder.is_dir():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


def collection_name(shelf: Shelf) -> str:
    """A name Chroma allows (3 to 512 of [a-zA-Z0-9._-]), readable, and different for every (env, kind)."""
    env, kind = shelf
    slug = re.sub(r"[^a-z0-9]+", "-", f"{kind} {env}".lower())[:48].strip("-")
    return f"{slug}-{hashlib.sha256(repr(shelf).encode()).hexdigest()[:10]}"


def _client(folder: Path) -> Any:
    import chromadb
    from chromadb.api.shared_system_client import SharedSystemClient
    from chromadb.config import Settings

    # no .env: the working directory's keys are none of the index's business
    settings = Settings(_env_file=None, anonymized_telemetry=False)  # type: ignore[call-arg]
    try:
        return chromadb.PersistentClient(str(folder), settings=settings)
    except BaseException:
        # Chroma would give its half-made system to everybody who opens that folder again
        SharedSystemClient._identifier_to_system.pop(str(folder), None)
        raise


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _stamps(folder: Path) -> dict[str, list[int]]:
    """The size and the time of the last change of each file but `closed`."""
    found = [(path, path.stat()) for path in _files(folder) if path.name != CLOSED]
    return {str(path.relative_to(folder)): [stat.st_size, stat.st_mtime_ns] for path, stat in found}


def _digest(ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def _extended(
    scanned: tuple[list[str], NDArray[np.float64]], ids: list[str], vectors: NDArray[np.float32]
) -> tuple[list[str], NDArray[np.float64]]:
    """More rows: in float64, so that a similarity does not depend on how many rows it was computed with."""
    import numpy as np

    return scanned[0] + ids, np.vstack([scanned[1], np.asarray(vectors, np.float64).reshape(len(ids), -1)]) if ids else scanned[1]


def _batches(items: Sequence[str]) -> list[list[str]]:
    return [list(items[start : start + BATCH]) for start in range(0, len(items), BATCH)]
