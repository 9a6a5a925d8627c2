import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from agentevolve.memory import HashEmbedder, MiniLM, open_memory, read_entries, read_ledger, read_stats
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry

WORDS = ["coin", "door", "red", "blue", "apple", "drawer", "kitchen", "garden", "open", "close"]
WORDS += ["take", "put", "key", "lamp", "sofa", "north", "south", "box", "desk", "shelf"]


def entry(id: str, key: str = "find the coin", **fields) -> Entry:
    return Entry(**({"id": id, "kind": "demo", "key": key, "text": f"text of {id}", "env": "coin"} | fields))


def opened(folder: Path):
    return open_memory(folder, embedder=HashEmbedder())


def random_keys(n: int) -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=6)) for _ in range(n)]


def test_the_nearest_come_first_with_their_similarity(tmp_path: Path):
    with opened(tmp_path / "m") as memory:
        memory.add([entry("a", "take the red key"), entry("b", "open the red door"), entry("c", "open the red door now")])
        hits = memory.recall("open the red door", env="coin", k=2)
    assert [(hit.id, near) for hit, near in hits] == [("b", 1.0), ("c", pytest.approx(4 / np.sqrt(4 * 5), abs=1e-5))]


def test_recall_keeps_to_environment_and_kind_and_search_does_not(tmp_path: Path):
    with opened(tmp_path / "m") as memory:
        memory.add([entry("a"), entry("b", env="twc"), entry("c", kind="insight"), entry("d", env="Coin")])
        assert [hit.id for hit, _ in memory.recall("find the coin", env="coin", k=9)] == ["a"]
        assert [hit.id for hit, _ in memory.recall("find the coin", env="coin", k=9, kind="insight")] == ["c"]
        assert [hit.id for hit, _ in memory.search("find the coin", 9)] == ["a", "b", "c", "d"]
        assert memory.recall("find the coin", env="unheard of", k=3) == []
        assert memory.recall("find the coin", env="coin", k=0) == []


def test_search_sees_what_has_come_and_gone_since(tmp_path: Path):
    with opened(tmp_path / "m") as memory:
        assert memory.search("find the coin", 3) == []
        memory.add([entry("a"), entry("b", key="find the lamp")])
        assert [hit.id for hit, _ in memory.search("find the coin", 3)] == ["a", "b"]
        memory.add([entry("c", key="find a coin")])
        memory.retire("a", 1, "wrong")
        assert [hit.id for hit, _ in memory.search("find the coin", 3)] == ["b", "c"]


def test_as_of_a_round_the_memory_is_what_it_was_then(tmp_path: Path):
    with opened(tmp_path / "m") as memory:
        memory.add([entry("a", round=0), entry("b", round=1), entry("c", round=2)])
        memory.retire("a", 2, "wrong")
        memory.retire("a", 1, "a second retirement changes nothing")

        def ids(as_of):
            recalled = sorted(hit.id for hit, _ in memory.recall("find the coin", env="coin", k=9, as_of=as_of))
            assert recalled == [item.id for item in memory.entries(as_of=as_of)]
            return recalled

        assert [ids(0), ids(1), ids(2), ids(None)] == [["a"], ["a", "b"], ["b", "c"], ["b", "c"]]
        assert memory.stats()["retired"] == 1


def test_an_id_that_is_there_is_left_as_it_is(tmp_path: Path):
    with opened(tmp_path / "m") as memory:
        memory.add([entry("a", text="first"), entry("a", text="second"), entry("b")])
        memory.retire("b", 1, "")
        memory.add([entry("a", text="third"), entry("b")])
        assert [(item.id, item.text) for item in memory.entries()] == [("a", "first")]
    with opened(tmp_path / "m") as memory:
        assert [(item.id, item.text) for item in memory.entries()] == [("a", "first")]


def test_equal_nearness_is_ordered_by_id_over_any_number_of_entries(tmp_path: Path):
    ids = [f"{i:04}" for i in range(600)]
    random.Random(1).shuffle(ids)
    with opened(tmp_path / "m") as memory:
        # word order does not change the vector, so that these keys are all equally near to the query
        memory.add([entry(id, " ".join(random.Random(id).sample(WORDS, len(WORDS)))) for id in ids])
        assert [hit.id for hit, _ in memory.recall(" ".join(WORDS), env="coin", k=3)] == ["0000", "0001", "0002"]


def test_recall_finds_the_true_nearest_among_entries_that_do_not_count(tmp_path: Path):
    keys = random_keys(1500)
    with opened(tmp_path / "m") as memory:
        memory.add([entry(f"{i:04}", key, round=i % 10) for i, key in enumerate(keys)])
        vectors = HashEmbedder().embed(keys)
        for query in random_keys(1510)[1500:]:
            far = 1 - vectors @ HashEmbedder().embed([query])[0]
            truth = sorted((round(float(far[i]), 4), f"{i:04}") for i in range(0, len(keys), 10))[:5]
            hits = memory.recall(query, env="coin", k=5, as_of=0)
            assert [round(1 - near, 4) for _, near in hits] == pytest.approx([far for far, _ in truth], abs=2e-4)


def test_a_reopened_and_a_rebuilt_memory_recall_the_same(tmp_path: Path):
    def recalled(memory):
        return [memory.recall(query, env="coin", k=8) for query in random_keys(510)[500:]]

    with opened(tmp_path / "m") as memory:
        for i, key in enumerate(random_keys(500)):
            memory.add([entry(f"{i:04}", key)])
            if i % 166 == 0:
                memory.recall("coin", env="coin", k=1)
        first = recalled(memory)
    with opened(tmp_path / "m") as memory:
        assert recalled(memory) == first
        assert memory.rebuild() == len(set(random_keys(500)))
        assert recalled(memory) == first


def test_recall_in_parallel_with_adding(tmp_path: Path):
    keys = random_keys(200)
    with opened(tmp_path / "m") as memory, ThreadPoolExecutor(8) as pool:

        def work(i: int) -> bool:
            memory.add([entry(f"{i:04}", keys[i])])
            return any(hit.id == f"{i:04}" for hit, _ in memory.recall(keys[i], env="coin", k=200))

        assert all(pool.map(work, range(200)))
        assert len(memory.entries()) == 200


HOSTILE = [
    "",
    "\x00\x01\x1b[31m\r\n\t\u2028\u0085",
    "😀👩‍👩‍👧‍👦 ẞ ﷽",
    "\ud800 lone \udfff",
    "x" * 300_000,
    "'; DROP TABLE--{{x}} ../../",
    "[bold]%s{0}",
]


def test_hostile_text_is_stored_and_recalled_unchanged(tmp_path: Path):
    entries = [entry(f"id {text[:20]}", text, text=text, env=text[:600], sources=(text[:9],)) for text in HOSTILE]
    with opened(tmp_path / "m") as memory:
        memory.add(entries)
    with opened(tmp_path / "m") as memory:
        for given in entries:
            assert memory.recall(given.key, env=given.env, k=1) == [(given, 1.0)]
        assert memory.entries() == entries
    assert read_entries(tmp_path / "m") == entries


def test_a_memory_of_another_embedding_model_is_refused_by_name(tmp_path: Path):
    opened(tmp_path / "m").close()
    with pytest.raises(AgentevolveError, match=f"{HashEmbedder.name}.*{MiniLM.name}"):
        open_memory(tmp_path / "m", embedder=MiniLM())
    with open_memory(tmp_path / "m") as memory:  # by default it is searched with what it was made with
        assert memory.vectors(["a"]).shape == (1, HashEmbedder.dim)
    opened(tmp_path / "m").close()  # the failed opening holds no lock


def test_what_is_not_a_memory_is_refused_and_left_alone(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"meow")
    (tmp_path / "file").write_text("x")
    for folder, why in (("photos", "it has no memory.json"), ("file", "it is not a folder")):
        for use in (opened, read_entries):
            with pytest.raises(AgentevolveError, match=f"{folder}: not a memory: {why}"):
                use(tmp_path / folder)
    with pytest.raises(AgentevolveError, match="missing: not a memory: it does not exist"):
        open_memory(tmp_path / "missing", create=False)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 1}', "\x00"])
def test_a_damaged_memory_json_is_named(tmp_path: Path, text: str):
    opened(tmp_path).close()
    (tmp_path / "memory.json").write_text(text)
    with pytest.raises(AgentevolveError, match=r"memory\.json: damaged"):
        opened(tmp_path)


def test_a_memory_of_another_format_is_named(tmp_path: Path):
    opened(tmp_path).close()
    (tmp_path / "memory.json").write_text('{"format": 9, "later": true}')
    with pytest.raises(AgentevolveError, match=r"memory\.json: format: 9 is not known; .* 1"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{oh no", "not a journal line"),
        ('{"op": "burn", "id": "a"}', "not a line of a memory"),
        ('{"op": "retire", "id": "unknown", "round": 1, "why": ""}', "not a line of a memory"),
        ('{"op": "add", "entry": {"id": "b", "kind": "dream"}}', "not an entry: kind"),
    ],
)
def test_a_damaged_journal_line_is_named_and_nothing_changed(tmp_path: Path, line: str, why: str):
    with opened(tmp_path) as memory:
        memory.add([entry("a")])
    journal = tmp_path / "entries.jsonl"
    journal.write_text(journal.read_text() + line + "\n")
    before = journal.read_bytes()
    for use in (opened, read_ledger):
        with pytest.raises(AgentevolveError, match=rf"entries\.jsonl:2: {why}"):
            use(tmp_path)
    assert journal.read_bytes() == before


def test_retiring_an_unknown_entry_is_refused(tmp_path: Path):
    with opened(tmp_path) as memory, pytest.raises(AgentevolveError, match="cannot retire 'x': no such entry"):
        memory.retire("x", 1, "")


def test_one_process_at_a_time_and_readers_always(tmp_path: Path):
    program = """
import sys; from pathlib import Path; from agentevolve.memory import *
open_memory(Path(sys.argv[1]), embedder=HashEmbedder())
"""
    with opened(tmp_path / "m") as memory:
        memory.add([entry("a")])
        child = subprocess.run([sys.executable, "-c", program, tmp_path / "m"], capture_output=True, text=True)
        assert f"{tmp_path / 'm'}: in use by process {os.getpid()} (" in child.stderr
        assert [item.id for item in read_entries(tmp_path / "m")] == ["a"]
    assert subprocess.run([sys.executable, "-c", program, tmp_path / "m"]).returncode == 0


def test_a_closed_memory_says_so(tmp_path: Path):
    memory = opened(tmp_path / "m")
    memory.close()
    memory.close()
    with pytest.raises(AgentevolveError, match="was closed"):
        memory.recall("x", env="coin", k=1)


def test_reading_needs_neither_index_nor_model(tmp_path: Path):
    program = f"""
import sys; from pathlib import Path; from agentevolve.memory import *; from agentevolve.records import Entry
memory = open_memory(Path({str(tmp_path / "m")!r}))
memory.add([Entry(id="a", kind="demo", key="k", text="t", env="e")])
memory.entries(), memory.stats(), memory.close(), read_entries(memory.folder), read_stats(memory.folder)
print([name for name in ("torch", "chromadb", "sentence_transformers", "transformers", "scipy") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def test_stats_count_what_is_there(tmp_path: Path):
    with opened(tmp_path / "m") as memory:
        memory.add([entry("a"), entry("b", round=1, kind="insight"), entry("c", env="twc", round=1), entry("d")])
        memory.retire("d", 1, "")
    with opened(tmp_path / "m") as memory:
        stats = memory.stats()
    size = sum(path.stat().st_size for path in (tmp_path / "m").rglob("*"))
    assert (
        stats
        == read_stats(tmp_path / "m")
        == {
            "entries": 3,
            "retired": 1,
            "quarantined": 0,
            "set_aside": 0,
            "by_kind": {"demo": 2, "insight": 1},
            "by_env": {"coin": 2, "twc": 1},
            "by_round": {0: 1, 1: 2},
            "embedding_model": "hash-64",
            "bytes": size,
        }
    )
    assert json.loads((tmp_path / "m" / "memory.json").read_text())["embedding_model"] == "hash-64"
