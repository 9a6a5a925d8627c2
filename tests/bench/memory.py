"""How fast a memory is, beside plain Chroma and exact search: `python tests/bench/memory.py --entries 1000 10000 100000 1000000`.

Vectors stand in for the embedding model: four environments, topics and subtopics with noise, so that near things are near. Each
figure is taken in a process of its own. An opening lasts until each of the four environments has been recalled from; the one
after a kill is of a memory whose writer had written to each.
"""

import argparse
import functools
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from agentevolve.memory import EntryMemory, open_memory
from agentevolve.memory.embed import unit
from agentevolve.records import Entry

SEED, DIM, K, QUERIES, BATCH = 0, 384, 8, 400, 1_000
ENVS = ("attic", "barn", "cellar", "dairy")
ASKED = 1 << 40  # numbers from here on are queries
WORDS = tuple(f"{first}{last}" for first in ("lamp", "door", "key", "chest", "stair", "well") for last in "abcdefghijklmnop")


@functools.cache
def topics(level: int, n: int) -> np.ndarray:
    return np.random.default_rng((SEED, level)).normal(size=(n, DIM)).astype(np.float32)


@functools.lru_cache(64)
def block(number: int) -> np.ndarray:
    """The vectors of a thousand consecutive numbers."""
    rng = np.random.default_rng((SEED, 2, number))
    topic, subtopic = rng.integers(256, size=BATCH), rng.integers(4_096, size=BATCH)
    noise = rng.normal(size=(BATCH, DIM)).astype(np.float32)
    return unit(topics(0, 256)[topic] + 0.8 * topics(1, 4_096)[subtopic] + 0.6 * noise)


class Injected:
    """A text's vector is that of the number at its end."""

    name, identity = "injected-384", "1"

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        numbers = [int(text.rpartition(" ")[2]) for text in texts]
        return np.stack([block(number // BATCH)[number % BATCH] for number in numbers])


def made(start: int, stop: int) -> list[Entry]:
    """Entries of about 600 characters, in the four environments by turns and of ten thousand a round."""
    rng = random.Random(start)
    entries = []
    for i in range(start, stop):
        key = f"You are in a house. {' '.join(rng.choices(WORDS, k=10))} {i}"
        text = " ".join(rng.choices(WORDS, k=85))[:500]
        entries.append(Entry(id=f"t{i}", kind="demo", key=key, text=text, env=ENVS[i % 4], round=1 + i // 10_000, reward=1.0))
    return entries


def asked() -> Iterator[tuple[str, str]]:
    """What is asked, and where."""
    return ((f"query {ASKED + i}", ENVS[i % 4]) for i in range(QUERIES))


def fill(n: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + BATCH, n)) for start in range(0, n, BATCH))


def quantiles(ask: Callable[[str, str], list[str]], near: list[list[str]]) -> dict[str, float]:
    """How long an answer takes, and the share of the truly nearest in it."""
    seconds, hits = [], 0
    for (query, env), truth in zip(asked(), near, strict=True):
        start = time.perf_counter()
        found = ask(query, env)
        seconds.append(time.perf_counter() - start)
        hits += len({*found} & {*truth})
    ms = np.array(seconds) * 1e3
    return {"p50": float(np.quantile(ms, 0.5)), "p99": float(np.quantile(ms, 0.99)), "recall": hits / sum(map(len, near))}


def once(ask: Callable[[str, str], object]) -> None:
    for i, env in enumerate(ENVS):
        ask(f"query {ASKED + i}", env)


def recalling(memory: EntryMemory) -> Callable[[str, str], list[str]]:
    return lambda query, env: [entry.id for entry, _ in memory.recall(query, env=env, k=K)]


def opened(folder: Path) -> EntryMemory:
    return open_memory(folder / "m", embedder=Injected())


def memory_add(folder: Path, n: int) -> dict[str, float]:
    start = time.perf_counter()
    memory = opened(folder)
    seconds = time.perf_counter() - start
    for part in fill(n):
        entries = made(*part)
        block(part[0] // BATCH)
        start = time.perf_counter()
        memory.add(entries)
        once(recalling(memory))
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    memory.close()
    return {"rate": n / (seconds + time.perf_counter() - start)}


def memory_open(folder: Path, n: int) -> dict[str, float]:
    start = time.perf_counter()
    memory = opened(folder)
    once(recalling(memory))
    figures = {"open": time.perf_counter() - start}
    return figures | quantiles(recalling(memory), json.loads((folder / "near.json").read_text()))


def memory_kill(folder: Path, n: int) -> dict[str, float]:
    memory = opened(folder)
    once(recalling(memory))
    start = time.perf_counter()
    for i in range(n, n + 4):
        memory.add(made(i, i + 1))
        memory.recall("query 0", env=ENVS[i % 4], k=K)
    return {"one more": (time.perf_counter() - start) / 4}


def memory_unclean(folder: Path, n: int) -> dict[str, float]:
    return {"unclean": memory_open(folder, n)["open"]}


def plain_collection(folder: Path) -> object:
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(str(folder / "plain"), settings=Settings(anonymized_telemetry=False))
    return client.get_or_create_collection("all", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None)


def plain_asking(collection: object) -> Callable[[str, str], list[str]]:
    def ask(query: str, env: str) -> list[str]:
        return collection.query(query_embeddings=Injected().embed([query]), n_results=K, where={"env": env})["ids"][0]

    return ask


def plain_add(folder: Path, n: int) -> dict[str, float]:
    collection = plain_collection(folder)
    seconds = 0.0
    for part in fill(n):
        entries = made(*part)
        ids, texts, envs = [one.id for one in entries], [one.text for one in entries], [{"env": one.env} for one in entries]
        vectors = Injected().embed([one.key for one in entries])
        start = time.perf_counter()
        collection.add(ids=ids, documents=texts, metadatas=envs, embeddings=vectors)
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    once(plain_asking(collection))
    return {"rate": n / (seconds + time.perf_counter() - start)}


def plain_open(folder: Path, n: int) -> dict[str, float]:
    start = time.perf_counter()
    ask = plain_asking(plain_collection(folder))
    once(ask)
    figures = {"open": time.perf_counter() - start}
    return figures | quantiles(ask, json.loads((folder / "near.json").read_text()))


def exact_open(folder: Path, n: int) -> dict[str, float]:
    """One matrix an environment; what it finds is what the others are measured by."""
    rows = np.concatenate([block(part[0] // BATCH)[: part[1] - part[0]] for part in fill(n)])
    parts = {env: np.ascontiguousarray(rows[place::4]) for place, env in enumerate(ENVS)}
    del rows

    def ask(query: str, env: str) -> list[str]:
        near = parts[env] @ Injected().embed([query])[0]
        first = np.argpartition(-near, min(K, len(near) - 1))[:K]
        return [f"t{4 * row + ENVS.index(env)}" for row in first[np.argsort(-near[first])]]

    near = [ask(query, env) for query, env in asked()]
    (folder / "near.json").write_text(json.dumps(near))
    return quantiles(ask, near)


STAGES: dict[str, tuple[Callable[[Path, int], dict[str, float]], ...]] = {
    "exact search (numpy)": (exact_open,),
    "agentevolve": (memory_add, memory_open, memory_kill, memory_unclean),
    "plain Chroma, `where`": (plain_add, plain_open),
}


def staged(name: str, folder: str, n: int) -> None:
    """One stage, in this process, which then ends as if it had been killed."""
    figures = globals()[name](Path(folder), n)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # Linux says KB
    print(json.dumps(figures | {"peak " + name: peak}), flush=True)
    os._exit(0)


def measured(what: str, folder: Path, n: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    for stage in STAGES[what]:
        done = subprocess.run(
            [sys.executable, __file__, "--stage", stage.__name__, str(folder), str(n)],
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        figures |= json.loads(done.stdout)
    place = folder / {"agentevolve": "m"}.get(what, "plain")
    figures["disk"] = sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 1e6 if place.is_dir() else 0.0
    figures["peak"] = max(peak for name, peak in figures.items() if name.startswith("peak"))
    return figures


COLUMNS = {
    "added /s": ("rate", ",.0f"),
    "recall p50, ms": ("p50", ".1f"),
    "p99, ms": ("p99", ".1f"),
    "recall@8": ("recall", ".3f"),
    "one more + recall, ms": ("one more", ".3g"),
    "open, s": ("open", ".2f"),
    "after a kill, s": ("unclean", ".2f"),
    "disk, MB": ("disk", ",.0f"),
    "peak memory, MB": ("peak", ",.0f"),
}


def row(n: int, what: str, figures: dict[str, float]) -> str:
    figures = figures | ({"one more": figures["one more"] * 1e3} if "one more" in figures else {})
    cells = [format(figures[name], form) if figures.get(name) else "–" for name, form in COLUMNS.values()]
    return f"| {n:,} | {what} | {' | '.join(cells)} |"


def machine() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "chromadb"))
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}, {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--plain", type=int, default=100_000, help="plain Chroma is left out above so many entries")
    parser.add_argument("--stage", nargs=3, metavar=("NAME", "FOLDER", "N"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        staged(given.stage[0], given.stage[1], int(given.stage[2]))
    print(f"{machine()}; seed {SEED}; {DIM} dimensions, 4 environments, {QUERIES} queries of k = {K}, one process, one thread\n")
    print(f"| entries | what | {' | '.join(COLUMNS)} |\n|{'---|' * (2 + len(COLUMNS))}", flush=True)
    for n in given.entries:
        with tempfile.TemporaryDirectory() as folder:
            for what in STAGES:
                if not what.startswith("plain") or n <= given.plain:
                    print(row(n, what, measured(what, Path(folder), n)), flush=True)


if __name__ == "__main__":
    main()
