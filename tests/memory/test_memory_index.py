import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agentevolve.memory import EntryMemory, HashEmbedder, graph, index, open_memory, read_ledger
from agentevolve.memory.embed import unit
from agentevolve.memory.index import Index, collection_name
from agentevolve.memory.keys import key_id
from agentevolve.memory.provenance import VARIABLE
from agentevolve.memory.rows import Rows
from agentevolve.memory.seals import seal, stamps
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry

WRITER = """
import sys
from pathlib import Path
from agentevolve.memory import HashEmbedder, open_memory
from agentevolve.records import Entry
memory = open_memory(Path(sys.argv[1]), embedder=HashEmbedder())
start = len(memory.entries())
for i in range(start, start + 100_000, 7):
    memory.add([Entry(id=str(j), kind="demo", key=f"key {j} of {j % 13}", text="t" * 500, env="coin") for j in range(i, i + 7)])
    memory.recall(f"key {i} of", env="coin", k=2)
    print(i, flush=True)
"""


class Counting(HashEmbedder):
    """Counts the texts it was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def embed(self, texts):
        self.asked += len(texts)
        return super().embed(texts)


@pytest.fixture
def graphs(monkeypatch) -> None:
    """Graphs from 500 rows on, so that a test can afford them."""
    monkeypatch.setattr(index, "SCANNED", 500)
    for module in (index, graph):
        monkeypatch.setattr(module, "STEP", 200)


def rows_of(folder: Path) -> Path:
    """The file with the vectors of the memory's one shelf."""
    [path] = (folder / "chroma").glob("*.vectors")
    return path


def graph_of(folder: Path) -> Path:
    """The folder of the graph of the memory's one shelf."""
    [path] = (path for path in (folder / "chroma").glob("*/*") if path.is_dir())
    return path


def seal_again(kept: Path) -> None:
    """Say of the graph, whatever it is now, that it was closed so."""
    seal(kept, json.loads((kept / "closed").read_text().splitlines()[1]) | {"files": stamps(kept)})


def filled(folder: Path, keys: list[str]) -> None:
    with open_memory(folder, embedder=HashEmbedder()) as memory:
        memory.add([Entry(id=key, kind="demo", key=key, text="t", env="coin") for key in keys])
        memory.recall("x", env="coin", k=1)


def recalled(folder: Path, embedder=None) -> dict[str, float]:
    with open_memory(folder, embedder=embedder or HashEmbedder()) as memory:
        return {hit.id: near for hit, near in memory.recall("key 3", env="coin", k=10_000)}


def indexed(folder: Path) -> dict[str, set[str]]:
    """What the index on disk holds, after the memory was opened, used and closed."""
    with open_memory(folder, embedder=HashEmbedder()) as memory:
        memory.recall("x", env="coin", k=1)
        memory.search("x", 1)
    return Index(folder / "chroma", HashEmbedder()).ids()


def journaled(folder: Path) -> dict[str, set[str]]:
    return {collection_name(shelf): set(keys) for shelf, keys in read_ledger(folder).shelves().items()}


def test_the_index_equals_the_journal_after_kills_in_mid_add(tmp_path: Path):
    rng = random.Random(0)
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "m"], stdout=subprocess.PIPE, text=True)
        acknowledged = [child.stdout.readline() for _ in range(rng.randrange(1, 40))]
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        ledger = read_ledger(tmp_path / "m")
        assert ledger.get(str(int(acknowledged[-1]) + 6)), "what was acknowledged is there"
        assert indexed(tmp_path / "m") == journaled(tmp_path / "m")
        assert len(recalled(tmp_path / "m")) == ledger.size


@pytest.mark.parametrize("closed", [True, False])
def test_no_key_is_embedded_twice_whether_the_index_was_closed_or_not(tmp_path: Path, closed: bool):
    keys = [f"key {i}" for i in range(40)]
    filled(tmp_path, keys)
    expected, counting = recalled(tmp_path), Counting()
    if not closed:
        (tmp_path / "chroma" / "closed").unlink()
        with rows_of(tmp_path).open("ab") as file:
            file.write(bytes(1_000))  # rows that a killed writer did not get to write
    assert recalled(tmp_path, counting) == expected and counting.asked == 1  # the query alone
    with open_memory(tmp_path, embedder=counting) as memory:
        memory.add([Entry(id="new", kind="demo", key="new", text="t", env="coin")])
        memory.recall("x", env="coin", k=1)
    assert set(recalled(tmp_path, counting)) == {*keys, "new"} and counting.asked == 1 + 2 + 1


def test_rows_from_the_first_that_was_tampered_with_on_are_embedded_again(tmp_path: Path):
    filled(tmp_path, [f"key {i}" for i in range(40)])
    expected, counting, path = recalled(tmp_path), Counting(), rows_of(tmp_path)
    data = bytearray(path.read_bytes())
    size = (len(data) - 16) // 40
    data[16 + 30 * size + size - 1] ^= 1
    path.write_bytes(data)
    assert recalled(tmp_path, counting) == expected and counting.asked == 1 + 10
    path.write_bytes(data[:16] + data[16 : 16 + size] * 40)  # a signed row again and again
    assert recalled(tmp_path, counting) == expected and counting.asked == 1 + 10 + 1 + 39


def test_an_index_of_another_user_or_another_model_is_never_read(tmp_path: Path, monkeypatch):
    keys = [f"key {i}" for i in range(9)]
    filled(tmp_path, keys)
    expected, counting = recalled(tmp_path), Counting()
    counting.identity = "another"
    about = tmp_path / "memory.json"
    about.write_text(about.read_text().replace(HashEmbedder.identity, "another"))
    assert recalled(tmp_path, counting) == expected and counting.asked == 1 + len(keys)
    before = (tmp_path / "chroma" / "closed").read_bytes(), rows_of(tmp_path).read_bytes()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "theirs"))
    journal = tmp_path / "entries.jsonl"
    journal.unlink()
    with open_memory(tmp_path, embedder=counting) as memory:  # the same entries, signed with the other key
        memory.add([Entry(id=key, kind="demo", key=key, text="t", env="coin") for key in keys])
    assert before == ((tmp_path / "chroma" / "closed").read_bytes(), rows_of(tmp_path).read_bytes())
    counting.asked = 0
    assert recalled(tmp_path, counting) == expected and counting.asked == 1 + len(keys)


def test_the_index_follows_a_journal_that_changed_while_it_was_closed(tmp_path: Path):
    filled(tmp_path / "m", ["key 1", "key 2", "key 3"])
    journal = tmp_path / "m" / "entries.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    other = lines[0].replace('"coin"', '"twc"').replace("key 1", "key 9")
    journal.write_text(lines[0] + lines[2] + other)
    assert set(recalled(tmp_path / "m")) == {"key 1", "key 3"}
    assert indexed(tmp_path / "m") == journaled(tmp_path / "m")
    journal.write_text(other)
    assert recalled(tmp_path / "m") == {}
    assert indexed(tmp_path / "m") == journaled(tmp_path / "m")


def test_equal_keys_share_one_vector(tmp_path: Path):
    with open_memory(tmp_path / "m", embedder=HashEmbedder()) as memory:
        memory.add([Entry(id=str(i), kind="demo", key=f"key {i % 3}", text="t", env="coin", round=i) for i in range(300)])
        assert memory.rebuild() == 3
        assert [hit.id for hit, _ in memory.recall("key 1", env="coin", k=3, as_of=4)] == ["1", "4", "0"]


@pytest.mark.parametrize("how", ["garbage", "cut", "gone", "empty folder", "file"])
def test_an_unreadable_index_is_rebuilt(tmp_path: Path, how: str, graphs):
    keys = [f"key {i} {i % 7}" for i in range(700)]
    filled(tmp_path / "m", keys)
    expected, chroma = recalled(tmp_path / "m"), tmp_path / "m" / "chroma"
    assert {path.name for path in graph_of(tmp_path / "m").iterdir()} >= {"closed", "chroma.sqlite3"}
    for path in sorted(path for path in chroma.rglob("*") if path.is_file()):
        size = path.stat().st_size if path.exists() else 0
        match how:
            case "garbage":
                path.write_bytes(random.Random(0).randbytes(max(size, 40)))
            case "cut":
                os.truncate(path, size // 2)
            case "gone":
                path.unlink()
    if how in ("empty folder", "file"):
        shutil.rmtree(chroma)
        chroma.write_text("not a folder") if how == "file" else chroma.mkdir()
    assert recalled(tmp_path / "m") == expected


def apart() -> list[str]:
    """Keys for a graph that is made anew: of many equal or equally near ones each graph misses others."""
    rng = random.Random(0)
    return [" ".join(str(rng.randrange(10**6)) for _ in range(20)) for _ in range(700)]


def near(folder: Path) -> list[tuple[str, float]]:
    """What a graph is asked for: few of the nearest."""
    with open_memory(folder, embedder=HashEmbedder()) as memory:
        found = [(hit.id, near) for hit, near in memory.recall(" ".join(apart()[3:5]), env="coin", k=6)]
    assert len({near for _, near in found}) == 6
    return found


def test_damage_to_one_file_of_a_graph_is_noticed(tmp_path: Path, graphs):
    filled(tmp_path, apart())
    expected, kept = near(tmp_path), graph_of(tmp_path)
    names = [path.name for path in kept.rglob("*") if path.is_file() and path.name != "closed"]
    assert {"chroma.sqlite3", "data_level0.bin"} <= set(names)
    for name in names:
        [path] = kept.rglob(name)
        path.write_bytes(random.Random(0).randbytes(max(path.stat().st_size, 40)))
        assert near(tmp_path) == expected, name


OTHERS = {
    "a later migration": "insert into migrations select dir, 99, 'later', 'create table x(y)', 'abc' from migrations limit 1",
    "a changed migration": "update migrations set hash = 'abc'",
    "no migrations": "delete from migrations",
    "no collections": "drop table collections",
    "no vectors": "drop table embeddings",
    "another column": "alter table segments rename column type to kind",
    "another configuration": "update collections set config_json_str = '{\"later\": 1}'",
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_whole_graph_of_another_chroma_is_made_anew(tmp_path: Path, other: str, graphs):
    filled(tmp_path, apart())
    expected, kept = near(tmp_path), graph_of(tmp_path)
    with sqlite3.connect(kept / "chroma.sqlite3") as database:
        database.execute(OTHERS[other])
    database.close()
    seal_again(kept)
    for _ in range(2):
        assert near(tmp_path) == expected


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\x00", b"garbage" * 1000])
def test_a_database_that_is_none_is_made_anew_though_its_seal_fits(tmp_path: Path, content: bytes, graphs):
    filled(tmp_path, apart())
    expected, kept = near(tmp_path), graph_of(tmp_path)
    (kept / "chroma.sqlite3").write_bytes(content)
    seal_again(kept)
    assert near(tmp_path) == expected


def test_an_index_that_breaks_while_it_is_open_is_one_line_and_a_rebuild_mends_it(tmp_path: Path, monkeypatch, graphs):
    keys = [f"key {i} {i % 7}" for i in range(700)]
    filled(tmp_path, keys)
    expected = recalled(tmp_path)
    with open_memory(tmp_path, embedder=HashEmbedder()) as memory:
        memory.recall("x", env="coin", k=1)

        def panic(*_: object) -> None:
            raise RuntimeError("thread panicked\n  at somewhere")

        with monkeypatch.context() as broken:
            broken.setattr(graph.Graph, "nearest", panic)
            with pytest.raises(
                AgentevolveError, match=r"chroma: the index cannot be used: .*agentevolve memory rebuild"
            ) as caught:
                memory.recall("key 3", env="coin", k=1)
            assert "\n" not in str(caught.value)
        assert memory.rebuild() == 700
    assert recalled(tmp_path) == expected


CRAMPED = """
import resource, signal, sys
from pathlib import Path
from agentevolve.memory import HashEmbedder, open_memory
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open_memory(Path(sys.argv[1]), embedder=HashEmbedder()) as memory:
    memory.add([Entry(id=str(i), kind="demo", key=f"key {i}", text="t", env="coin") for i in range(1100)])
    for room in (int(sys.argv[2]), resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        try:
            print(len(memory.recall("key 3", env="coin", k=5)))
        except AgentevolveError as error:
            print(error)
"""


@pytest.mark.parametrize("room", [0, 4_096, 100_000])
def test_a_disk_that_fills_is_one_line_and_with_room_it_goes_on(tmp_path: Path, room: int):
    done = subprocess.run([sys.executable, "-c", CRAMPED, tmp_path / "m", str(room)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    full, found = done.stdout.splitlines()
    assert full.startswith(f"{tmp_path / 'm' / 'chroma'}: the index cannot be used: ")
    assert full.endswith("what is remembered is kept, make the index anew with: agentevolve memory rebuild MEMORY")
    assert (found, len(recalled(tmp_path / "m"))) == ("5", 1100)


def test_an_index_that_is_a_link_is_not_deleted(tmp_path: Path):
    filled(tmp_path / "m", ["key 1"])
    shutil.rmtree(tmp_path / "m" / "chroma")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "precious").write_text("x")
    (tmp_path / "m" / "chroma").symlink_to(tmp_path / "else")
    with pytest.raises(AgentevolveError, match="chroma: is a link"):
        recalled(tmp_path / "m")
    assert (tmp_path / "else" / "precious").read_text() == "x"


def test_an_embedder_that_fails_loses_nothing(tmp_path: Path):
    class Moody(HashEmbedder):
        broken = False

        def embed(self, texts):
            if self.broken:
                raise AgentevolveError("out of vectors")
            return super().embed(texts)

    def found(memory: EntryMemory) -> list[str]:
        return sorted(hit.id for hit, _ in memory.recall("key", env="coin", k=9))

    moody = Moody()
    with open_memory(tmp_path / "m", embedder=moody) as memory:
        for broken_id, whole_id in (("a", "b"), ("c", "d")):
            moody.broken = True
            memory.add([Entry(id=broken_id, kind="demo", key=broken_id, text="t", env="coin")])
            with pytest.raises(AgentevolveError, match="out of vectors"):
                found(memory)
            moody.broken = False
            memory.add([Entry(id=whole_id, kind="demo", key=whole_id, text="t", env="coin")])
            assert {broken_id, whole_id} <= set(found(memory))
    with open_memory(tmp_path / "m", embedder=moody) as memory:
        assert found(memory) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("env", ["", "a", "A" * 2000, "../..", "ä😀", "twc", "twc ", "TWC"])
def test_collection_names_are_allowed_and_distinct(env: str):
    name = collection_name((env, "demo"))
    assert (
        3 <= len(name) <= 512 and name[0].isalnum() and name[-1].isalnum() and name.replace("-", "").isalnum() and name.isascii()
    )
    assert name not in {collection_name((other, "demo")) for other in ("x", "twc  ", "Twc")}


class Drawn(HashEmbedder):
    """A text's vector is drawn from it: no two are near each other, the hardest case for a graph."""

    def embed(self, texts):
        return unit(np.stack([np.random.default_rng(int(text)).normal(size=64) for text in texts]))


def drawn(start: int, stop: int) -> dict[str, str]:
    return {key_id(str(i)): str(i) for i in range(start, stop)}


def test_a_shelf_too_large_to_scan_finds_nearly_all_of_the_true_nearest_while_it_grows(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(index, "SCANNED", 1_500)
    for module in (index, graph):
        monkeypatch.setattr(module, "STEP", 1_000)
    shelf, opened, n = ("coin", "demo"), Index(tmp_path / "chroma", Drawn(), [("coin", "demo")]), 0
    for size, graphed in ((1_400, None), (2_300, "2000"), (2_900, "2000"), (4_100, "4000")):
        opened.add(shelf, drawn(n, size))
        n = size
        assert [path.name for path in (tmp_path / "chroma").glob("coin-*/*")] == ([graphed] if graphed else []) or graphed
        vectors = Drawn().embed([str(i) for i in range(n)])
        found = []
        for query in Drawn().embed([str(10_000 + i) for i in range(40)]):
            truth = np.sort(vectors @ query)[::-1][:10]
            hits = opened.nearest(shelf, query, 10)
            found += [near == pytest.approx(true, abs=1e-5) for (_, near), true in zip(hits, truth, strict=True)]
            every = [near for _, near in opened.nearest(shelf, query, n)]
            assert every == pytest.approx(np.sort(vectors @ query)[::-1], abs=1e-5)
        assert np.mean(found) > 0.95
    opened.close()
    assert graph_of(tmp_path).name == "4000"
    reader = Index(tmp_path / "chroma", Drawn())
    reader.hold(shelf, drawn(0, 4_150))
    assert reader.nearest(shelf, Drawn().embed(["4120"])[0], 1) == [(key_id("4120"), 1.0)]
    reader.close()


def test_a_graph_that_was_being_made_when_its_writer_was_killed_is_not_opened(tmp_path: Path, monkeypatch, graphs):
    filled(tmp_path, apart())
    expected, kept = near(tmp_path), graph_of(tmp_path)
    half = kept.parent / "800"
    shutil.copytree(kept, half)
    (half / "closed").unlink()
    made = []
    monkeypatch.setattr(index, "grow", lambda *given: made.append(given))
    assert near(tmp_path) == expected and not made  # the one before is opened as it is


def test_a_scan_is_exact_to_the_last_digit_and_takes_equals_in_order(tmp_path: Path):
    rng = np.random.default_rng(0)
    vectors = unit(np.repeat(rng.normal(size=(300, 384)), 3, axis=0) + 1e-7 * rng.normal(size=(900, 384)))
    rows = Rows(tmp_path / "x.vectors", "1", owned=True, trusted=False)
    rows.extend([key_id(str(i)) for i in range(900)], vectors)
    for query in vectors[::90]:
        near = vectors.astype(np.float64) @ query.astype(np.float64)
        places = [place for place, _ in rows.nearest(query, 20)]
        assert places == np.argsort(-near, kind="stable")[:20].tolist()
