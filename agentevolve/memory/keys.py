"""What of a retrieval key is compared: not the sentences that all keys of a shelf share, such as the rules of the world.

They make every entry equally near, and an embedding model reads the start of a text only: a long policy before each ticket
leaves nothing of the ticket.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

ENDS = re.compile(r"(?<=[.!?:])\s+|\n+")


def key_id(key: str) -> str:
    """The id under which a text is indexed: equal texts have one."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def sentences(text: str) -> list[str]:
    """The sentences and lines of `text`, in order, without those that are empty."""
    return [part for found in ENDS.split(text) if (part := found.strip())]


def distinctive(text: str, shared: Collection[str]) -> str:
    """`text` without the sentences in `shared`; all of it where nothing else is in it."""
    if not shared:
        return text
    return "\n".join(part for part in sentences(text) if part not in shared) or text


class Keyed(Protocol):
    """What has a key."""

    @property
    def key(self) -> str:
        """The text that it is found by."""


Has = TypeVar("Has", bound=Keyed)


class Shelved(Generic[Has]):
    """The keys of one (env, kind), as they are indexed, and what has them.

    What all keys of the first round share is left out; later rounds change nothing about it, so that what was recalled as of an
    earlier round stays as it was. One key alone shares nothing.
    """

    def __init__(self, round: int) -> None:
        self.round = round  # the first
        self._sentences: set[str] = set()
        self.shared: frozenset[str] = frozenset()
        self.raw: dict[str, list[Has]] = {}  # by key id: what has that key, oldest first
        self._indexed: dict[str, list[str]] = {}
        self._left: list[str] = []  # key ids that are not in there yet

    def add(self, id: str, keyed: Has, round: int) -> bool:
        """Add what has the key of that id, of that round. Whether the keys that were there are now indexed as something else."""
        if id in self.raw:
            self.raw[id].append(keyed)
            return False
        before, first = self.shared, not self.raw
        self.raw[id] = [keyed]
        if round == self.round:
            found = set(sentences(keyed.key))
            self._sentences = found if first else self._sentences & found
            self.shared = frozenset() if first else frozenset(self._sentences)
        if self.shared == before:
            self._left.append(id)
            return False
        self._indexed, self._left = {}, list(self.raw)
        return True

    def told(self) -> dict[str, Any]:
        """All of it but the keys themselves, as JSON; `as_told` makes it again."""
        under = {key: id for id, keys in self.indexed.items() for key in keys}
        return {
            "round": self.round,
            "sentences": sorted(self._sentences),
            "shared": sorted(self.shared),
            "keys": list(self.raw),
            "under": [under[key] for key in self.raw] if self.shared else None,
        }

    @classmethod
    def as_told(cls, told: Mapping[str, Any], keyed: Sequence[list[Has]]) -> Self:
        """The shelf of which that was told; `keyed` is what has each key, in the order of their ids."""
        made = cls(told["round"])
        made._sentences, made.shared = set(told["sentences"]), frozenset(told["shared"])
        made.raw = dict(zip(told["keys"], keyed, strict=True))
        for key, under in zip(told["keys"], told["under"] or told["keys"], strict=True):
            made._indexed.setdefault(under, []).append(key)
        return made

    @property
    def indexed(self) -> dict[str, list[str]]:
        """By the id of what is indexed: key ids. Made when it is asked for, as of most shelves nothing is."""
        left, self._left = self._left, []
        for id in left:
            under = key_id(self.text(self.raw[id][0].key)) if self.shared else id
            self._indexed.setdefault(under, []).append(id)
        return self._indexed

    def text(self, key: str) -> str:
        """What of `key` is indexed."""
        return distinctive(key, self.shared)

    def texts(self) -> Texts:
        """What is indexed: {id: text}."""
        return Texts(self.raw, {id: keys[0] for id, keys in self.indexed.items()}, self.shared)


class Texts(Mapping[str, str]):
    """What is indexed of a shelf's keys as they were, {id: text}: a text is made when it is asked for."""

    def __init__(self, raw: Mapping[str, Sequence[Keyed]], keys: Mapping[str, str], shared: frozenset[str]) -> None:
        self._raw, self._keys, self._shared = raw, keys, shared

    def __getitem__(self, id: str) -> str:
        """The text."""
        return distinctive(self._raw[self._keys[id]][0].key, self._shared)

    def __contains__(self, id: object) -> bool:
        """Whether something is indexed under the id; of which no text is made."""
        return id in self._keys

    def __iter__(self) -> Iterator[str]:
        """The ids, in the order in which they came."""
        return iter(self._keys)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._keys)
