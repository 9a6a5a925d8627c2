"""Chroma's graph over the first rows of a shelf that is too large to be scanned.

Chroma writes its files in place, and even opening changes them: a killed writer can leave files that load and then answer
wrongly or crash the process, and two openers of one folder can hang it or ruin it. So what Chroma opens is never what is kept.
A graph is made, or a copy of one extended, and sealed when Chroma has closed it, by the size and time of each file and a digest
of the rows, signed; it is searched in a view of one's own, which shares the large files. Thus a kill loses no graph, and who
only reads waits for none. Nothing is filtered by metadata, because that costs time linear in the collection.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from agentevolve.memory.seals import seal, sealed, stamps

if TYPE_CHECKING:
    from agentevolve.memory.embed import Vectors
    from agentevolve.memory.rows import Rows

STEP = 10_000  # rows by which a graph grows; Chroma writes it out after as many
BATCH = 1_000  # rows per call; Chroma takes at most some 5,000
# measured on 10,000 clustered vectors: all of the 8 nearest are found, and it is built in a third of the time of (200, 400, 32)
HNSW = {"space": "cosine", "ef_construction": 64, "ef_search": 200, "max_neighbors": 16}
NAME = "keys"


class Graph:
    """The graph in the folder `view`, which is this process's alone."""

    def __init__(self, view: Path, size: int) -> None:
        self.size = size
        self._client = _client(view)
        try:
            self._collection = self._client.get_collection(NAME, embedding_function=None)
        except BaseException:
            self.close()
            raise

    def nearest(self, vector: Vectors, n: int) -> list[str]:
        """Nearly all of the ids of the `n` nearest rows."""
        found: list[str] = self._collection.query(query_embeddings=[vector], n_results=min(n, self.size), include=[])["ids"][0]
        return found

    def close(self) -> None:
        """Let go of the files."""
        self._client.close()


def view(folder: Path, rows: Rows, place: Path) -> Graph | None:
    """The largest graph in `folder` that is sealed and is of these rows, opened in a new folder within `place`."""
    for size in sorted(_sizes(folder), reverse=True):
        kept, said = folder / str(size), sealed(folder / str(size))
        if size <= len(rows) and said == {"files": stamps(kept), "rows": _digest(rows.ids[:size])}:
            with contextlib.suppress(FileNotFoundError):  # its owner has just put a larger one in its place
                return _opened(kept, place, rows, size)
    return None


def _opened(kept: Path, place: Path, rows: Rows, size: int) -> Graph:
    place.mkdir(parents=True, exist_ok=True)
    shared = shutil.copytree(kept, Path(mkdtemp(dir=place)) / NAME, copy_function=_shared)
    graph = Graph(Path(shared), size)
    try:
        graph.nearest(rows.slice(0, 1)[0], 1)  # whole files that this Chroma cannot read (another version's) are only a cache
    except BaseException:
        graph.close()
        raise
    return graph


def grow(folder: Path, rows: Rows, held: int) -> None:
    """Make a graph in `folder` of all rows but fewer than STEP, of none or of a copy of the one of the first `held` rows."""
    size = len(rows) // STEP * STEP
    new = folder / str(size)
    shutil.rmtree(new, ignore_errors=True)
    if held:
        shutil.copytree(folder / str(held), new)
    _fill(new, rows, held, size)
    seal(new, {"files": stamps(new), "rows": _digest(rows.ids[:size])})
    for old in _sizes(folder) - {size}:
        shutil.rmtree(folder / str(old))


def _fill(folder: Path, rows: Rows, start: int, stop: int) -> None:
    client = _client(folder)
    try:
        collection = client.get_or_create_collection(
            NAME, configuration={"hnsw": HNSW | {"sync_threshold": STEP}}, embedding_function=None
        )
        for first in range(start, stop, BATCH):
            last = min(first + BATCH, stop)
            collection.add(ids=rows.ids[first:last], embeddings=rows.slice(first, last))
    finally:
        client.close()


def _sizes(folder: Path) -> set[int]:
    return {int(path.name) for path in folder.iterdir() if path.name.isdecimal()} if folder.is_dir() else set()


def _digest(ids: Sequence[str]) -> str:
    return hashlib.sha256("".join(ids).encode()).hexdigest()


def _shared(source: str, copy: str) -> None:
    """A link to a file that Chroma reads only, a copy of its database, or of any file where there can be no link."""
    if not source.endswith(".sqlite3"):
        with contextlib.suppress(OSError):
            return os.link(source, copy)
    shutil.copy2(source, copy)


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
