"""The entries of a run that are nearest in meaning to a text, by the memory's own search."""

from __future__ import annotations

import threading
from typing import Any

from agentevolve.memory import EntryMemory, read_memory
from agentevolve.protocols import AgentevolveError
from agentevolve.view.attempts import PAGE
from agentevolve.view.columns import FACETS
from agentevolve.view.index import Row
from agentevolve.view.memories import SHOWN, Memories, Wanted, in_words, meets, uses_of


class Nearest:
    """The memories of a run's seeds, open for searching: each from the first question on, and again when it has changed."""

    def __init__(self, memories: Memories) -> None:
        self.memories = memories
        self._open: dict[int, tuple[object, EntryMemory]] = {}
        self._lock = threading.Lock()

    def listed(self, asked: Wanted) -> dict[str, Any]:
        """The entries nearest to `asked.near`, at most a page, as a list of them (memories.py) has it.

        Raises AgentevolveError where there is no memory, or none that can be searched.
        """
        with self._lock:
            found = [one for seed in self._seeds(asked) for one in self._search(seed, asked)]
        if len({row["seed"] for row, _ in found}) > 1:  # of one seed they stand as its search has ranked them
            found.sort(key=lambda one: -one[1])
        rows = [
            {**dict(row), "similarity": near, "uses": uses_of(self.memories.index, row["id"], row["seed"])}
            for row, near in found[:PAGE]
        ]
        said = f"the {len(rows)} nearest in meaning to “{asked.near}” of all {in_words(asked)}"
        return {"rows": rows, "count": len(rows), "said": said, "next": "", "facets": {name: [] for name in FACETS}}

    def _seeds(self, asked: Wanted) -> list[int]:
        known = [row["seed"] for row in self.memories.index.ask("SELECT seed FROM memories ORDER BY seed")]
        seeds = [seed for seed in known if asked.seed in (None, seed)]
        if not seeds:
            raise AgentevolveError("there is no memory to search")
        return seeds

    def _search(self, seed: int, asked: Wanted) -> list[tuple[Row, float]]:
        memory = self._memory(seed)
        found = []
        for entry, near in memory.search(asked.near, PAGE, kind=asked.kind or None, env=asked.env or None):
            rows = self.memories.index.ask(f"SELECT {SHOWN} FROM entries WHERE id = ? AND seed = ?", (entry.id, seed))
            found += [(row, near) for row in rows if meets(row, asked)]
        return found

    def _memory(self, seed: int) -> EntryMemory:
        state = next(row for row in self.memories.state() if row[0] == seed)
        known, memory = self._open.get(seed, (None, None))
        if memory is None or known != state:
            if memory:
                memory.close()
            memory = read_memory(self.memories.index.memory(seed))
            self._open[seed] = state, memory
        return memory
