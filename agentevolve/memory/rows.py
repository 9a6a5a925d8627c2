"""The vectors of one shelf, a row for each distinct key, in a file that is only appended to.

A row is the key's id, a signature of both, and the vector: embedding is what is dear in an index, so a vector outlives a killed
writer, and one that this user's key has not signed, torn or from elsewhere, is not read. The file is mapped and not loaded:
all who read a memory share the pages. Whoever owns the memory appends; a reader's own rows stay in its memory.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentevolve.memory.provenance import signed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agentevolve.memory.embed import Vectors

MAGIC = b"vectors1"
HEAD = 16  # bytes: the magic and the dimension
ID, SEAL = 16, 16  # bytes of a row before its vector
CHUNK = 4_096  # rows that are scored in float64 at a time


class Rows:
    """The rows in the file at `path`, which need not be there; `identity` is the embedding model's.

    `trusted`: the file is known to be as it was closed; otherwise each row's signature is checked, and what follows the first
    that does not hold is left out, and cut off by the owner's next row. Not safe to change from two threads at once.
    """

    def __init__(self, path: Path, identity: str, *, owned: bool, trusted: bool, read: bool = True) -> None:
        self.path = path
        self._identity, self._owned = identity, owned
        self.ids: list[str] = []
        self._places: dict[str, int] = {}
        self._dim = 0
        self._blocks: tuple[NDArray[Any], ...] = ()  # the file's rows, then those that are in memory only
        if read:
            self._read(trusted)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, id: str) -> bool:
        return id in self._places

    def extend(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Append rows of ids that are not there yet; on disk, whole or not at all, if the file is owned."""
        import numpy as np

        if not self.ids:
            self._dim = vectors.shape[1]
        new = np.zeros(len(ids), self._form)
        new["id"] = np.frombuffer(bytes.fromhex("".join(ids)), f"V{ID}")
        new["vector"] = vectors
        key = self._key
        new["seal"] = np.frombuffer(b"".join(_seal(row.tobytes(), key) for row in new), f"V{SEAL}")
        if self._owned:
            self._append(new.tobytes())
        first = len(self)
        self.ids.extend(ids)  # before the rows, for who searches meanwhile
        if self._owned:
            self._map(len(self))
        else:
            self._blocks = (*self._blocks, new)
        self._places |= {id: place for place, id in enumerate(ids, first)}

    def without(self, gone: Collection[str]) -> Rows:
        """These rows but for those of the ids `gone`; a file that is owned is written anew, and until then stands as it was."""
        import numpy as np

        left = Rows(self.path, self._identity, owned=self._owned, trusted=False, read=False)
        places = [place for place, id in enumerate(self.ids) if id not in gone]
        rows = np.concatenate(self._blocks)[places]
        left._dim, left.ids = self._dim, [self.ids[place] for place in places]
        left._places = {id: place for place, id in enumerate(left.ids)}
        if self._owned:
            scratch = self.path.with_suffix(".partial")
            scratch.write_bytes(self._head + rows.tobytes())
            scratch.replace(self.path)
            left._map(len(left))
        else:
            left._blocks = (rows,)
        return left

    def nearest(self, vector: Vectors, n: int, *, after: int = 0) -> list[tuple[int, float]]:
        """The `n` (or all) rows nearest to `vector`, of those from `after` on: places and cosines, nearest first, exactly.

        Equals come in the order of their places. The search reads float32, which is half of what float64 would have to be
        fetched; whatever its rounding could have put outside the nearest is scored again in float64.
        """
        import numpy as np

        asked = vector.astype(np.float32)
        # not `@`: its thread pool, called from several rollout workers on few cores, took 100 ms where this takes 1
        parts, first = [np.zeros(0, np.float32)], 0
        for block in self._blocks:
            parts.append(np.einsum("ij,j->i", block["vector"][max(0, after - first) :], asked))
            first += len(block)
        near = np.concatenate(parts)
        if n < len(near):
            slack = len(vector) * np.finfo(np.float32).eps  # twice what the rounding of a sum of so many products can come to
            chosen = np.flatnonzero(near >= np.partition(near, len(near) - n)[len(near) - n] - slack)
        else:
            chosen = np.arange(len(near))
        places = (chosen + after).tolist()
        return self.scored(places, vector)[:n]

    def scored(self, places: Sequence[int], vector: Vectors) -> list[tuple[int, float]]:
        """The rows at these places, ascending, with their cosines to `vector` in float64, nearest first."""
        import numpy as np

        asked = vector.astype(np.float64)
        parts = [
            np.einsum("ij,j->i", self._at(places[start : start + CHUNK]).astype(np.float64), asked)
            for start in range(0, len(places), CHUNK)
        ]
        near = np.concatenate([*parts, np.zeros(0)])
        return [(places[row], float(near[row])) for row in np.argsort(-near, kind="stable")]

    def of(self, ids: Sequence[str]) -> Vectors:
        """The vectors of these ids, in their order, shape (len(ids), dim)."""
        return self._at([self._places[id] for id in ids])

    def places(self, ids: Sequence[str]) -> list[int]:
        """Where the rows of these ids are, ascending."""
        return sorted(self._places[id] for id in ids)

    def slice(self, start: int, stop: int) -> Vectors:
        """The vectors of the rows from `start` to `stop`."""
        return self._at(range(start, stop))

    def _at(self, places: Sequence[int]) -> Vectors:
        import numpy as np

        out = np.zeros((len(places), self._dim), np.float32)
        wanted, first = np.asarray(places, np.int64), 0
        for block in self._blocks:
            here = (wanted >= first) & (wanted < first + len(block))
            out[here] = block["vector"][wanted[here] - first]
            first += len(block)
        return out

    @property
    def _form(self) -> np.dtype[Any]:
        import numpy as np

        return np.dtype([("id", f"V{ID}"), ("seal", f"V{SEAL}"), ("vector", "<f4", (self._dim,))])

    @property
    def _head(self) -> bytes:
        return MAGIC + self._dim.to_bytes(HEAD - len(MAGIC), "little")

    @property
    def _key(self) -> bytes:
        return bytes.fromhex(signed(f"vectors of {self._identity}"))

    def _read(self, trusted: bool) -> None:
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            head = file.read(HEAD)
        self._dim = int.from_bytes(head[len(MAGIC) :], "little") if len(head) == HEAD and head.startswith(MAGIC) else 0
        if not 0 < self._dim < 1 << 20:
            self._dim = 0
            return
        count = (self.path.stat().st_size - HEAD) // self._form.itemsize
        self._map(count)
        found = [id.hex() for id in self._blocks[0]["id"].tolist()] if self._blocks else []
        if not trusted:
            found = found[: self._whole(found)]
            self._map(len(found))
        self.ids, self._places = found, {id: place for place, id in enumerate(found)}

    def _whole(self, ids: Sequence[str]) -> int:
        """How many rows there are before the first that is not signed, or is there already."""
        seen: set[str] = set()
        key = self._key
        for place, id in enumerate(ids):
            row = self._blocks[0][place].tobytes()
            if id in seen or not hmac.compare_digest(_seal(row, key), row[ID : ID + SEAL]):
                return place
            seen.add(id)
        return len(ids)

    def _map(self, count: int) -> None:
        import numpy as np

        self._blocks = (np.memmap(self.path, self._form, "r", HEAD, (count,)),) if count else ()

    def _append(self, data: bytes) -> None:
        end = HEAD + len(self) * self._form.itemsize if self.ids else 0
        left = data if end else self._head + data
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("r+b" if self.path.exists() else "xb", buffering=0) as file:
            try:
                if file.seek(0, 2) > end:
                    file.truncate(end)
                file.seek(end)
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(end)
                raise


def _seal(row: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(row[:ID] + row[ID + SEAL :], digest_size=SEAL, key=key).digest()
