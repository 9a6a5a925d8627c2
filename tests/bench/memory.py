"""How fast the memory is: `python tests/bench/memory.py [entries]`.

Random unit vectors of 384 dimensions stand for the embedding model, whose loading is timed at the end.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from agentevolve.memory import EntryMemory, MiniLM, open_memory
from agentevolve.memory.embed import unit
from agentevolve.records import Entry


class RandomVectors:
    """A text's vector is drawn from its hash: no two texts are near each other, the hardest case for the index."""

    name, identity = "random-384", "1"

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        seeds = [int.from_bytes(text.encode()[-8:], "little") for text in texts]
        return unit(np.stack([np.random.default_rng(seed).normal(size=384) for seed in seeds]))


def entries(n: int, prefix: str) -> list[Entry]:
    ids = [f"{prefix}{i:06}" for i in range(n)]
    return [Entry(id=id, kind="demo", key=id, text="t" * 800, env="coin", round=i % 8) for i, id in enumerate(ids)]


def add_and_recall(memory: EntryMemory, new: list[Entry]) -> None:
    memory.add(new)
    memory.recall("x", env="coin", k=5)


def timed(what: str, act: Callable[[], object]) -> None:
    start = time.perf_counter()
    act()
    print(f"{what:55} {time.perf_counter() - start:8.2f} s")


def recalls(what: str, memory: EntryMemory, **settings: int) -> None:
    def one(i: int) -> float:
        start = time.perf_counter()
        memory.recall(f"query{i:05}", env="coin", **{"k": 5} | settings)
        return (time.perf_counter() - start) * 1e3

    one(0)
    ms = sorted(one(i) for i in range(300))
    with ThreadPoolExecutor(4) as pool:
        start = time.perf_counter()
        list(pool.map(one, range(300)))
        rate = 300 / (time.perf_counter() - start)
    print(f"{what:55} {statistics.median(ms):8.2f} ms p50 {ms[284]:8.2f} ms p95 {rate:8.0f}/s by 4 threads")


def found(memory: EntryMemory, n: int) -> float:
    vectors = RandomVectors().embed([item.key for item in memory.entries()])
    shares = []
    for i in range(100):
        near = np.sort(vectors @ RandomVectors().embed([f"query{i:05}"])[0])[-5:]
        shares.append(np.mean([similarity >= near[0] - 1e-5 for _, similarity in memory.recall(f"query{i:05}", env="coin", k=5)]))
    return float(np.mean(shares))


def main(n: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        memory = open_memory(Path(folder, "m"), embedder=RandomVectors())
        timed("import chromadb, create the index", lambda: memory.recall("x", env="coin", k=1))
        timed("add 1,000 entries to the journal", lambda: memory.add(entries(1_000, "a")))
        timed("index them", lambda: memory.recall("x", env="coin", k=1))
        timed("100 times: add one entry and recall", lambda: [add_and_recall(memory, [new]) for new in entries(100, "b")])
        timed(f"add and index {n - 1_100:,} more", lambda: add_and_recall(memory, entries(n - 1_100, "c")))
        recalls(f"recall 5 of {n:,}", memory)
        recalls(f"recall 5 of {n:,}, as of the first round", memory, as_of=0)
        print(f"{'share of the true 5 nearest that is recalled':55} {found(memory, n):8.3f}")
        timed("close", memory.close)
        memory = open_memory(Path(folder, "m"), embedder=RandomVectors())
        timed("open again and recall", lambda: memory.recall("x", env="coin", k=1))
        timed("rebuild", memory.rebuild)
        print(f"{'size':55} {memory.stats()['bytes'] / 1e6:8.1f} MB")
        memory.close()
    timed("load MiniLM", lambda: MiniLM().embed(["x"]))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
