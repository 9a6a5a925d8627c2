"""Reading a memory: by any number of processes at once, also while its owner writes, and without a trace in its folder."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from agentevolve.memory import HashEmbedder, MiniLM, graph, index, open_memory, read_memory
from agentevolve.memory.seals import seal, stamps
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry

READER = """
import os, sys, tempfile
from pathlib import Path
from agentevolve.memory import HashEmbedder, open_memory, read_memory
from agentevolve.records import Entry
with tempfile.TemporaryDirectory() as warm, open_memory(Path(warm), embedder=HashEmbedder()) as memory:
    memory.add([Entry(id="x", kind="demo", key="x", text="x", env="x")])  # the key, as whatever Chroma imports late,
    memory.search("x", 1)  # may lie where only root can read
if os.geteuid() == 0:
    os.seteuid(65534)  # as root, permissions bind nobody
for _ in range(int(sys.argv[1])):
    with read_memory(Path(), embedder=HashEmbedder()) as memory:
        print(*(hit.id for hit, _ in memory.recall("key 3", env="coin", k=3)), flush=True)
"""


class Counting(HashEmbedder):
    """Counts the texts it was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def embed(self, texts):
        self.asked += len(texts)
        return super().embed(texts)


def entries(n: int, start: int = 0, env: str = "coin") -> list[Entry]:
    return [Entry(id=f"{i}", kind="demo", key=f"key {i}", text="t", env=env) for i in range(start, start + n)]


def opened(folder: Path):
    return open_memory(folder, embedder=HashEmbedder())


def filled(folder: Path, n: int = 20) -> None:
    with opened(folder) as memory:
        memory.add(entries(n))
        memory.recall("x", env="coin", k=1)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def nearest(memory) -> list[tuple[str, float]]:
    return [(hit.id, near) for hit, near in memory.recall("key 3", env="coin", k=5)]


def start(folder: Path, times: int) -> subprocess.Popen:
    words = [sys.executable, "-c", READER, str(times)]
    return subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("state", ["closed", "open", "not there", "killed", "no longer those files", "written to since"])
def test_a_reader_recalls_as_the_owner_would_and_leaves_no_trace(tmp_path, state, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / "m"
    filled(folder)
    with opened(folder) as owner:
        expected = nearest(owner)
    owner = opened(folder) if state == "open" else None
    if owner:
        nearest(owner)
    elif state == "not there":
        shutil.rmtree(folder / "chroma")
    elif state == "killed":
        (folder / "chroma" / "closed").unlink()
    elif state == "no longer those files":
        [rows] = (folder / "chroma").glob("*.vectors")
        os.truncate(rows, rows.stat().st_size - 500)
    elif state == "written to since":
        with opened(folder) as later:
            later.add([Entry(id="far", kind="demo", key="nothing like it", text="t", env="coin")])
    before, counting = tree(folder), Counting()
    with read_memory(folder, embedder=counting) as memory:
        assert nearest(memory) == expected
        assert [hit.id for hit, _ in memory.search("key 3", 1)] == ["3"]
    assert tree(folder) == before
    assert counting.asked == 2 + {"not there": 20, "no longer those files": 2, "written to since": 1}.get(state, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    if owner:
        assert nearest(owner) == expected
        owner.close()


def test_readers_in_other_processes_recall_while_the_owner_writes(tmp_path):
    folder = tmp_path / "m"
    filled(folder)
    readers = [start(folder, 6) for _ in range(3)]
    start_at = 20
    while any(reader.poll() is None for reader in readers):
        with opened(folder) as owner:
            owner.add(entries(5, start_at, "twc"))
            nearest(owner)
        start_at += 5
    for reader in readers:
        out, err = reader.communicate()
        assert (err, [line.split()[0] for line in out.splitlines()]) == ("", ["3"] * 6)
    with opened(folder) as owner:
        assert nearest(owner)[0] == ("3", 1.0) and len(owner.entries()) == start_at


def test_a_memory_in_which_nothing_can_be_written_is_read(tmp_path):
    filled(tmp_path)
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    out, err = start(tmp_path, 1).communicate()
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o755)
    assert (out.split()[0], err) == ("3", "")


def test_a_reader_writes_nothing_and_a_closed_memory_neither(tmp_path):
    filled(tmp_path)
    before = tree(tmp_path)
    reader, closed = read_memory(tmp_path, embedder=HashEmbedder()), opened(tmp_path)
    closed.close()
    for memory, said in ((reader, "cannot write: it was opened for reading only"), (closed, "was closed")):
        for use in (lambda m: m.add(entries(1)), lambda m: m.retire("3", 1, "why"), lambda m: m.rebuild()):
            with pytest.raises(AgentevolveError, match=said):
                use(memory)
    assert tree(tmp_path) == before
    reader.close()
    with pytest.raises(AgentevolveError, match="was closed"):
        nearest(reader)


@pytest.mark.parametrize("what", ["nothing", "photos", "another model"])
def test_a_failed_read_makes_nothing(tmp_path, what):
    if what == "photos":
        (tmp_path / "cat.jpg").write_bytes(b"meow")
    elif what == "another model":
        filled(tmp_path)
    folder = tmp_path / "m" if what == "nothing" else tmp_path
    before = tree(tmp_path)
    with pytest.raises(AgentevolveError, match="made with hash-64" if what == "another model" else "not a memory"):
        read_memory(folder, embedder=MiniLM())
    assert tree(tmp_path) == before


def test_a_graph_is_read_in_a_view_and_one_that_chroma_cannot_read_is_done_without(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(index, "SCANNED", 500)
    for module in (index, graph):
        monkeypatch.setattr(module, "STEP", 200)
    (tmp_path / "tmp").mkdir()
    folder = tmp_path / "m"
    filled(folder, 700)
    [kept] = (path for path in (folder / "chroma").glob("*/*") if path.is_dir())
    for whole in (True, False):
        if not whole:
            (kept / "chroma.sqlite3").write_bytes(b"not a database" * 1000)
            seal(kept, json.loads((kept / "closed").read_text().splitlines()[1]) | {"files": stamps(kept)})
        before = tree(folder)
        with read_memory(folder, embedder=HashEmbedder()) as memory:
            assert nearest(memory)[0][1] == 1.0
            assert len(list((tmp_path / "tmp").glob("*/*/keys"))) == 1
        assert tree(folder) == before and not list((tmp_path / "tmp").iterdir())


def test_who_reads_may_be_first(tmp_path):
    with opened(tmp_path) as owner:
        owner.add(entries(20))
    before = tree(tmp_path)
    with read_memory(tmp_path, embedder=HashEmbedder()) as memory:
        assert nearest(memory)[0] == ("3", 1.0)
    assert tree(tmp_path) == before
