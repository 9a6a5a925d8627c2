"""After any sequence of what can be done to a memory, and to its files by a kill: what it is, is what its journal says."""

import os
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agentevolve.memory import EntryMemory, HashEmbedder, open_memory, read_ledger, read_memory
from agentevolve.memory.curate import curate
from agentevolve.memory.forget import forget
from agentevolve.memory.index import Index, collection_name
from agentevolve.memory.ledger import Ledger
from agentevolve.memory.move import take_in, write_entries
from agentevolve.records import Entry
from agentevolve.run.folder import Run

WORDS = ("lamp", "door", "red", "blue", "kitchen", "key")
KEYS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(lambda words: f"The rules. {' '.join(words)}.")
QUERIES = ("The rules. red lamp.", "blue door.", "kitchen")
NEW = st.tuples(KEYS, st.integers(0, 4), st.sampled_from(("demo", "insight")), st.integers(0, 2), st.booleans())


class Remembering(RuleBasedStateMachine):
    """One memory, what was ever told to it, and what it recalled as of each round when that round was over."""

    def __init__(self) -> None:
        super().__init__()
        self._place = tempfile.TemporaryDirectory()
        self.run = Path(self._place.name) / "r"
        run = Run(self.run, quiet=True)
        run.once("a run", lambda: "with a memory")
        run.close()
        self.folder = self.run / "memory"
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
            id, says = f"{self.made:04}", f"says {text} of the heron-{task}"
            sources = (f"{self.round}/acquire/t{task}/{id}",) if sourced else ()
            entries.append(
                Entry(id=id, kind=kind, key=key, text=says, env="e", task=f"t{task}", round=self.round, sources=sources)
            )
        self.told |= {one.id: one for one in entries}
        self.memory.add(entries)

    @rule(which=st.integers(0, 999))
    def retire(self, which: int) -> None:
        present = self.memory.entries()
        if present:
            self.memory.retire(present[which % len(present)].id, self.round, "because")

    @rule(which=st.integers(0, 999))
    def restore(self, which: int) -> None:
        ledger = read_ledger(self.folder)
        gone = [one for one in ledger.all() if not ledger.present(one)]
        if gone:
            entry = gone[which % len(gone)]
            id = self.memory.restore(entry.id, self.round)
            self.told[id] = entry.model_copy(update={"id": id, "round": self.round})
            assert (here := self.memory.get(id)) and here.text == entry.text and here in self.memory.entries()

    @rule(which=st.integers(0, 999))
    def quarantine(self, which: int) -> None:
        present = self.memory.entries()
        if present:
            self.memory.quarantine(
                present[which % len(present)].id, self.round, f"what it says of the {present[0].task} is wrong"
            )

    @rule(which=st.integers(0, 999))
    def let_go(self, which: int) -> None:
        ledger = read_ledger(self.folder)
        if held := [one for one in ledger.all() if ledger.state(one.id) == "quarantined"]:
            entry = held[which % len(held)]
            assert self.memory.restore(entry.id, self.round) == entry.id and entry.id in {one.id for one in self.memory.entries()}

    @rule(which=st.integers(0, 999), words=st.sampled_from(("", "look at it", "it is what the {} does")))
    def annotate(self, which: int, words: str) -> None:
        if every := read_ledger(self.folder).all():
            entry = every[which % len(every)]
            self.memory.annotate(entry.id, words.format(f"heron-{entry.task.removeprefix('t')}"))

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

    @rule(torn=st.integers(0, 700))
    def crash(self, torn: int) -> None:
        """As `kill -9` leaves it: files that were never closed, half a line at the journal's end, rows that were half written."""
        left = Path(self._place.name) / "left"
        shutil.copytree(self.folder, left)
        self.memory.close()
        shutil.rmtree(self.folder)
        left.rename(self.folder)
        with (self.folder / "entries.jsonl").open("ab") as journal:
            journal.write(b'{"op": "add", "entry": {"id": "hal')
        for path in self.folder.glob("chroma/*.vectors"):
            os.truncate(path, max(0, path.stat().st_size - torn))
        self.memory = open_memory(self.folder)

    @rule()
    def merge(self) -> None:
        """Curate: what says the same of the same task becomes one."""
        for one in curate(self.memory, [], self.round):
            made = self.memory.get(one.merged)
            assert self.memory.get(one.id) and made
            assert any(made.text == here.text and made.task == here.task for here in self.memory.entries())
            self.told[made.id] = made

    @rule(task=st.integers(0, 2))
    def forget(self, task: int) -> None:
        gone = {id for id, one in self.told.items() if one.about(f"t{task}")}
        if not gone:
            return
        self.memory.close()
        [found] = forget(self.run, task=f"t{task}")
        assert set(found.entries) == gone
        self.memory = open_memory(self.folder)
        self.told = {id: one for id, one in self.told.items() if id not in gone}
        for number, kind, query in self.then:  # earlier rounds are without it too
            self.then[number, kind, query] = self.recalled(query, kind, number)
        self.memory.close()
        files = [path for path in self.run.rglob("*") if path.is_file()]
        assert not [path for path in files if f"heron-{task}".encode() in path.read_bytes()]
        self.memory = open_memory(self.folder)

    @rule()
    def take_elsewhere(self) -> None:
        """What is exported and imported is what is there, and the index is made from it."""
        place = Path(self._place.name)
        write_entries(self.folder, place / "out.jsonl")
        with open_memory(place / "n", embedder=HashEmbedder()) as other:
            take_in(other, place / "out.jsonl")
            assert other.entries() == self.memory.entries()
            indexed_as_journaled(other)
        shutil.rmtree(place / "n")
        (place / "out.jsonl").unlink()

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
        assert {id for hits in self.then.values() for id, _ in hits} <= {one.id for one in ledger.all()} <= self.told.keys()

    @rule()
    def the_index_is_what_the_journal_says(self) -> None:
        indexed_as_journaled(self.memory)

    @invariant()
    def recall_is_the_exact_nearest_of_what_the_journal_says(self) -> None:
        for kind in ("demo", "insight"):
            near = self.recalled(QUERIES[0], kind, None)
            here = {one.id for one in self.memory.entries(kind=kind, env="e")}
            assert {id for id, _ in near} <= here and len(near) == min(4, len(here))
            assert [-similarity for _, similarity in near] == sorted(-similarity for _, similarity in near)

    @invariant()
    def what_was_vouched_for_at_a_clean_end_is_what_the_lines_say(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            alone = Path(place) / "entries.jsonl"
            if (self.folder / "entries.jsonl").is_file():
                alone.write_bytes((self.folder / "entries.jsonl").read_bytes())
            assert everything(Ledger(self.folder / "entries.jsonl")) == everything(Ledger(alone))

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


def everything(ledger: Ledger) -> object:
    """All that a memory's ledger tells."""
    entries = [
        (one, ledger.said(one.id), ledger.said(one.id, 2), ledger.gone(one.id), ledger.gain(one.id), ledger.gain(one.id, 2))
        for one in ledger.all()
    ]
    stances = [
        (ledger.state(one.id), ledger.stance(one.id), ledger.stance(one.id, 2), ledger.annotation(one.id)) for one in ledger.all()
    ]
    shelves = {
        shelf: {id: (text, ledger.under(shelf, id), ledger.under(shelf, id, 2)) for id, text in keys.items()}
        for shelf, keys in ledger.shelves().items()
    }
    asked = [ledger.asked(query, "e") for query in QUERIES]
    return entries, stances, shelves, asked, ledger.stats(), ledger.aside(), ledger.names()


def indexed_as_journaled(memory: EntryMemory) -> None:
    """After all of it has been asked, the files hold the keys of the journal and no others."""
    memory.search("x", 1)
    said = {collection_name(shelf): set(keys) for shelf, keys in read_ledger(memory.folder).shelves().items()}
    reader = Index(memory.folder / "chroma", HashEmbedder())
    assert reader.ids() == said
    reader.close()


def steps(examples: int) -> settings:
    return settings(max_examples=examples, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))


class TestRemembering(Remembering.TestCase):
    settings = steps(int(os.environ.get("EXAMPLES", "12")))


@pytest.mark.slow
class TestRememberingAtLength(Remembering.TestCase):
    settings = steps(200)
