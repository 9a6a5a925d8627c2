"""After any sequence of adding, retiring, recalling, crashing and rebuilding: what the memory is, is what its journal says."""

import os
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agentevolve.memory import EntryMemory, HashEmbedder, open_memory, read_ledger, read_memory
from agentevolve.records import Entry

WORDS = ("lamp", "door", "red", "blue", "kitchen", "key")
KEYS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(lambda words: f"The rules. {' '.join(words)}.")
QUERIES = ("The rules. red lamp.", "blue door.", "kitchen")
NEW = st.tuples(KEYS, st.integers(0, 4), st.sampled_from(("demo", "insight")), st.integers(0, 2), st.booleans())


class Remembering(RuleBasedStateMachine):
    """One memory, what was ever told to it, and what it recalled as of each round when that round was over."""

    def __init__(self) -> None:
        super().__init__()
        self._place = tempfile.TemporaryDirectory()
        self.folder = Path(self._place.name) / "m"
        self.memory: EntryMemory = open_memory(self.folder, embedder=HashEmbedder())
        self.round, self.made = 1, 0
        self.told: dict[str, Entry] = {}
        self.then: dict[tuple[int, str, str], list[tuple[str, float]]] = {}

    def teardown(self) -> None:
        self.memory.close()
        self._place.cleanup()

    def recalled(self, query: str, kind: str, as_of: int | None) -> list[tuple[str, float]]:
        return [(one.id, near) for one, near in self.memory.recall(query, env="e", k=4, as_of=as_of, kind=kind)]

    @initialize(new=st.lists(NEW, min_size=1, max_size=4))
    def begin(self, new: list) -> None:
        self.add(new)

    @rule(new=st.lists(NEW, min_size=1, max_size=4))
    def add(self, new: list) -> None:
        entries = []
        for key, text, kind, task, sourced in new:
            self.made += 1
            id = f"{self.made:04}"
            sources = (f"{self.round}/acquire/t{task}/{id}",) if sourced else ()
            entries.append(
                Entry(id=id, kind=kind, key=key, text=f"says {text}", env="e", task=f"t{task}", round=self.round, sources=sources)
            )
        self.told |= {one.id: one for one in entries}
        self.memory.add(entries)

    @rule(which=st.integers(0, 999))
    def retire(self, which: int) -> None:
        present = self.memory.entries()
        if present:
            self.memory.retire(present[which % len(present)].id, self.round, "because")

    @rule()
    def end_the_round(self) -> None:
        for kind in ("demo", "insight"):
            for query in QUERIES:
                self.then[self.round, kind, query] = self.recalled(query, kind, self.round)
        self.round += 1

    @rule()
    def close_and_open(self) -> None:
        self.memory.close()
        self.memory = open_memory(self.folder)

    @rule()
    def crash(self) -> None:
        """As `kill -9` leaves it: an index that was never closed, and half a line at the journal's end."""
        self.memory.close()
        (self.folder / "chroma" / "closed").unlink(missing_ok=True)
        with (self.folder / "entries.jsonl").open("ab") as journal:
            journal.write(b'{"op": "add", "entry": {"id": "hal')
        self.memory = open_memory(self.folder)

    @rule()
    def rebuild(self) -> None:
        self.memory.rebuild()

    @invariant()
    def every_text_is_there_once_for_what_it_is_about(self) -> None:
        said = [(one.kind, one.task, one.text) for one in self.memory.entries() if one.sources]
        assert len(said) == len(set(said))

    @invariant()
    def no_source_is_lost_or_made_up(self) -> None:
        ledger = read_ledger(self.folder)
        known = {source for one in self.told.values() for source in one.sources}
        held = [one for id in self.told if (one := ledger.get(id))]
        assert len(held) == len(self.told) and {source for one in held for source in one.sources} == known

    @invariant()
    def recall_is_the_exact_nearest_of_what_the_journal_says(self) -> None:
        for kind in ("demo", "insight"):
            near = self.recalled(QUERIES[0], kind, None)
            here = {one.id for one in self.memory.entries(kind=kind, env="e")}
            assert {id for id, _ in near} <= here and len(near) == min(4, len(here))
            assert [-similarity for _, similarity in near] == sorted(-similarity for _, similarity in near)

    @rule()
    def earlier_rounds_recall_what_they_recalled_then(self) -> None:
        for (number, kind, query), found in self.then.items():
            assert self.recalled(query, kind, number) == found

    @rule()
    def a_reader_sees_the_same(self) -> None:
        with read_memory(self.folder) as reader:
            for kind in ("demo", "insight"):
                mine = self.recalled(QUERIES[1], kind, None)
                assert [(one.id, near) for one, near in reader.recall(QUERIES[1], env="e", k=4, kind=kind)] == mine


Remembering.TestCase.settings = settings(
    max_examples=int(os.environ.get("EXAMPLES", "12")),
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestRemembering = Remembering.TestCase
