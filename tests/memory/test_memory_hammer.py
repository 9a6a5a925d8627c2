"""Eight readers and a writer at one memory, with `kill -9` among them: nothing is lost or doubled, and nobody waits."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from agentevolve.memory import HashEmbedder, open_memory, read_ledger
from agentevolve.memory.index import Index, collection_name
from agentevolve.protocols import AgentevolveError

READERS = 8
PATIENCE = 5.0  # seconds that an answer may take
PROGRAM = """
import signal, sys, time
from itertools import count
from pathlib import Path
from agentevolve.memory import HashEmbedder, graph, index, open_memory, read_memory
from agentevolve.records import Entry
role, folder, name, graphs = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "graphs"
if graphs:
    import chromadb
    index.SCANNED, index.STEP, graph.STEP = 300, 200, 200
WORDS = "lamp door chest stair well garden cellar roof".split()
said = lambda *words: print(*words, flush=True)
def entry(i):
    key = f"The rules. {WORDS[i % 8]} {WORDS[i // 8 % 8]} {name} {i}."
    return Entry(id=f"{name}-{i}", kind="demo", key=key, text=f"{key} " + "t" * 500, env=f"e{i % 2}", sources=(f"1/{name}/{i}",))
def write():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    numbers = count()
    with open_memory(folder, embedder=HashEmbedder()) as memory:
        for size in count():
            new = [entry(next(numbers)) for _ in range(1 + size % 5)]
            memory.add(new)
            said(*(one.id for one in new))
            memory.recall(f"lamp door {name}", env="e0", k=3)
def read():
    while True:
        start = time.monotonic()
        with read_memory(folder, embedder=HashEmbedder()) as memory:
            for i in range(3):
                near = memory.recall(f"The rules. {WORDS[i]} chest.", env=f"e{i % 2}", k=5)
                said(time.monotonic() - start, len(memory.entries()), *(one.id for one, _ in near))
                start = time.monotonic()
{"write": write, "read": read}[role]()
"""


class Hammered:
    """The processes at one memory, each with a file of what it said."""

    def __init__(self, place: Path, graphs: bool) -> None:
        self.folder, self._place, self._graphs = place / "m", place, "graphs" if graphs else "scans"
        self._count = 0
        self.at: dict[str, subprocess.Popen] = {}

    def start(self, role: str) -> str:
        self._count += 1
        name = f"{role}{self._count}"
        with (self._place / name).open("w") as out, (self._place / f"{name}.err").open("w") as err:
            words = [sys.executable, "-c", PROGRAM, role, str(self.folder), name, self._graphs]
            self.at[name] = subprocess.Popen(words, stdout=out, stderr=err)
        return name

    def stop(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        process = self.at.pop(name)
        assert process.poll() is None, (self._place / f"{name}.err").read_text()
        process.send_signal(how)
        process.wait()

    def said(self, name: str) -> list[list[str]]:
        """The whole lines of one process."""
        return [line.split() for line in (self._place / name).read_text().split("\n")[:-1]]

    def all(self, role: str) -> list[list[list[str]]]:
        return [self.said(f"{role}{n}") for n in range(1, self._count + 1) if (self._place / f"{role}{n}").exists()]

    def wait(self, name: str, seconds: float) -> None:
        """Until it has said something."""
        end = time.monotonic() + seconds
        while not self.said(name) and time.monotonic() < end:
            assert self.at[name].poll() is None, (self._place / f"{name}.err").read_text()
            time.sleep(0.05)
        assert self.said(name)


def hammer(place: Path, seconds: float, graphs: bool) -> Hammered:
    """Let them at it for so long: the writer and a reader are killed at seeded moments, and others take their places."""
    rng, hammered = random.Random(0), Hammered(place, graphs)
    try:
        writer = hammered.start("write")
        hammered.wait(writer, 60)
        for _ in range(READERS):
            hammered.start("read")
        for name in [name for name in hammered.at if name != writer]:
            hammered.wait(name, 120)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, start = hammered.at[writer].pid, time.monotonic()
            with pytest.raises(AgentevolveError, match=f"m: in use by process {pid} "):
                open_memory(hammered.folder, embedder=HashEmbedder())
            assert time.monotonic() - start < PATIENCE
            time.sleep(rng.uniform(0.2, 1.5))
            hammered.stop(writer, rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
            writer = hammered.start("write")
            hammered.stop(rng.choice(sorted(hammered.at.keys() - {writer})))
            hammered.start("read")
            hammered.wait(writer, 60)
        for name in list(hammered.at):
            hammered.stop(name)
    finally:
        for process in hammered.at.values():
            process.kill()
            process.wait()
    return hammered


def nothing_lost_or_doubled(hammered: Hammered) -> None:
    acknowledged = {id for lines in hammered.all("write") for line in lines for id in line}
    lines = [json.loads(line) for line in (hammered.folder / "entries.jsonl").read_bytes().split(b"\n")[:-1]]
    written = Counter(line["entry"]["id"] for line in lines)
    assert acknowledged and acknowledged <= written.keys() and set(written.values()) == {1}
    with open_memory(hammered.folder, embedder=HashEmbedder()) as memory:
        found = [one.id for env in ("e0", "e1") for one, _ in memory.recall("lamp", env=env, k=10_000)]
        assert sorted(found) == sorted(written)
    said = {collection_name(shelf): set(keys) for shelf, keys in read_ledger(hammered.folder).shelves().items()}
    reader = Index(hammered.folder / "chroma", HashEmbedder())
    assert reader.ids() == said
    reader.close()
    for lines in hammered.all("read"):
        there = [int(size) for _, size, *_ in lines]
        assert there == sorted(there)  # what a reader has seen does not go again
        assert all(len(near) == len(set(near)) >= min(5, int(size) // 2) for _, size, *near in lines)


def test_nothing_is_lost_or_doubled_by_eight_readers_a_writer_and_kills(tmp_path):
    nothing_lost_or_doubled(hammer(tmp_path, 8, graphs=False))


@pytest.mark.slow
@pytest.mark.parametrize("graphs", [False, True])
def test_for_a_minute_nobody_waits_for_more_than_five_seconds(tmp_path, graphs):
    hammered = hammer(tmp_path, 60, graphs=graphs)
    nothing_lost_or_doubled(hammered)
    waited = [float(seconds) for lines in hammered.all("read") for seconds, *_ in lines]
    assert len(waited) > 100 and max(waited) <= PATIENCE
