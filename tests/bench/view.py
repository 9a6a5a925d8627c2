"""How fast the inspector is on a large run: opening it cold and warm, and the first byte of every page.

    python tests/bench/view.py --attempts 10000 --turns 10 --entries 100000 --tries 20

Makes the run (its attempts are told, not lived) in a temporary folder, serves it in a process of its own, and prints a table.
Goals: cold 3 s, warm 0.5 s, first byte 300 ms at the 95th percentile, no answer over 1 MB.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agentevolve.memory import HashEmbedder, open_memory
from agentevolve.records import Entry, Looked, PolicyStamp, Task, Trajectory, Turn, Usage
from agentevolve.run.folder import JOURNAL, VIEW, Run
from agentevolve.view.index import ReadIndex

WORDS = [
    f"{first}{second}" for first in ("lamp", "door", "coin", "stove", "apple", "peach") for second in ("", "s", "like", "room")
]
ARMS = ("base", "memory", "distilled")
VAL = 200  # tasks that are measured with each arm


def text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def attempt(rng: random.Random, id: str, phase: str, task: str, split: str, turns: int, entries: int) -> Trajectory:
    """An attempt with texts of usual lengths: a prompt of 60 words, observations of 30."""
    shown = tuple(f"insight/{rng.randrange(entries)}" for _ in range(3)) if entries else ()
    usage = Usage(calls=1, prompt_tokens=300, completion_tokens=5, seconds=0.5)
    steps = [
        Turn(action=text(rng, 2), observation=text(rng, 30), actions=tuple(text(rng, 2) for _ in range(6)), usage=usage)
        for _ in range(turns)
    ]
    return Trajectory(
        id=id,
        task=Task(id=task, env="bench", split=split),
        policy=PolicyStamp(model="local/bench"),
        phase=phase,
        prompt=text(rng, 60),
        recalled=shown,
        looked=tuple(Looked(id=one, similarity=0.5, tokens=60, shown=True) for one in shown),
        context=text(rng, 60),
        turns=tuple(steps),
        reward=float(rng.random() < 0.4),
        end="terminated",
        seconds=1.0,
    )


def line(kind: str, **fields: Any) -> bytes:
    """A journal's line."""
    return json.dumps({"kind": kind, **fields}, separators=(",", ":")).encode() + b"\n"


def told(attempts: int, turns: int, entries: int) -> Iterator[bytes]:
    """The lines of so many attempts, with one round measured."""
    rng, measured = random.Random(0), min(VAL, attempts // 6)
    ids = {arm: [f"1/val/{arm}/t/{number}/0" for number in range(measured)] for arm in ARMS}
    named = [(f"1/acquire/t/{n // 8}/{n % 8}", "1/acquire", f"t/{n // 8}") for n in range(attempts - measured * len(ARMS))]
    named += [(id, f"1/val/{arm}", f"v/{n}") for arm in ARMS for n, id in enumerate(ids[arm])]
    for id, phase, task in named:
        one = attempt(rng, id, phase, task, "train" if phase == "1/acquire" else "val", turns, entries)
        yield line("trajectory", data=one.model_dump(mode="json"))
    yield line("fact", name="evaluation 1/val", data=ids)


def remembered(rng: random.Random, number: int) -> Entry:
    said = f"{number}: {text(rng, 50)}"
    return Entry(id=f"insight/{number}", kind="insight", key=text(rng, 12), text=said, env="bench", round=1)


def make(place: Path, attempts: int, turns: int, entries: int) -> None:
    """A run with a memory."""
    run = Run(place, quiet=True)
    run.once("made for", lambda: "a benchmark")
    run.close()
    with (place / JOURNAL).open("ab") as file:
        file.writelines(told(attempts, turns, entries))
    rng = random.Random(1)
    with open_memory(place / "memory", embedder=HashEmbedder()) as memory:
        memory.add([remembered(rng, number) for number in range(entries)])
        memory.search("lamp", 1)  # embeds them: the map is drawn of the vectors


def opened(place: Path) -> float:
    """Seconds until the index of the run knows its attempts."""
    start = time.perf_counter()
    index = ReadIndex(place)
    index.update()
    index.ask("SELECT count(*) FROM attempts")
    took = time.perf_counter() - start
    index.close()
    return took


def asked(port: int, address: str) -> tuple[float, int]:
    """Seconds until the first byte of an answer, and the answer's size."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    start = time.perf_counter()
    connection.request("GET", address)
    answer = connection.getresponse()
    first = answer.read(1)
    took = time.perf_counter() - start
    size = len(first + answer.read())
    connection.close()
    assert answer.status == 200, (address, answer.status)
    return took, size


def addresses(name: str, attempts: int, entries: int, number: int) -> dict[str, str]:
    """For each kind of page an address, another one at each try."""
    base, one = f"/runs/{name}", quote(f"1/acquire/t/{number % max(1, attempts // 20)}/0")
    other, word = quote(f"1/acquire/t/{number % max(1, attempts // 20)}/1"), WORDS[number % len(WORDS)]
    return {
        "runs": "/",
        "run": base,
        "picture": f"{base}/curve.svg",
        "attempts": f"{base}/attempts",
        "attempts, filtered": f"{base}/attempts?outcome=solved&arm=acquire&at_least={number % 5}",
        "attempts, by words": f"{base}/attempts?text={word}&sort=tokens",
        "attempts, far down": f"{base}/attempts?sort=reward&after=0.0~{number * 100_000}",
        "attempts shown an entry": f"{base}/attempts?entry={quote(f'insight/{number}', safe='')}",
        "attempt": f"{base}/attempt?id={one}&turn=3",
        "two attempts": f"{base}/compare?a={one}&b={other}",
        "memory": f"{base}/memory",
        "memory, by words": f"{base}/memory?text={word}",
        "memory, by gain": f"{base}/memory?sort=gain&round=1",
        "map": f"{base}/map",
        "map, by words": f"{base}/map?text={word}&state=there",
        "map, pressed": f"{base}/map?colour=round&x={30 + 20 * number}&y=200",
        "map's picture": f"{base}/map.png?colour=credit",
        "entry": f"{base}/entry?id={quote(f'insight/{number % max(1, entries)}', safe='')}",
        "policies": f"{base}/policies",
    }


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("attempts", 10_000), ("turns", 10), ("entries", 100_000), ("tries", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agentevolve-bench-") as folder:
        place = Path(folder) / "bench"
        make(place, given.attempts, given.turns, given.entries)
        print(f"{given.attempts:,} attempts of {given.turns} turns, journal {(place / JOURNAL).stat().st_size / 1e6:.0f} MB")
        print(f"{given.entries:,} entries")
        print(f"cold: {opened(place):.2f} s, index {(place / VIEW).stat().st_size / 1e6:.0f} MB")
        print(f"warm: {1e3 * min(opened(place) for _ in range(3)):.1f} ms")
        serve(place, given)


def serve(place: Path, given: argparse.Namespace) -> None:
    """Serve the run and ask for each page `tries` times, after the server has warmed up by itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from agentevolve.cli.main import main; main()", "view", str(place), "--port", str(port)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.05)
        print(f"serving after {time.perf_counter() - start:.1f} s")
        asked(port, "/runs/bench/curve.svg")
        asked(port, "/runs/bench/memory?text=lamp")
        asked(port, "/runs/bench/attempts?text=lamp")
        asked(port, "/runs/bench/map")
        print(f"all of it read after {time.perf_counter() - start:.1f} s")
        print(f"{'page':26} {'first ms':>9} {'p50 ms':>8} {'p95 ms':>8} {'largest kB':>11}")
        for page in addresses("bench", given.attempts, given.entries, 0):
            found = [
                asked(port, addresses("bench", given.attempts, given.entries, number)[page]) for number in range(given.tries)
            ]
            times = sorted(took for took, _ in found)
            p50, p95 = times[len(times) // 2], times[ceil(0.95 * len(times)) - 1]
            first, largest = found[0][0], max(size for _, size in found)
            print(f"{page:26} {1e3 * first:9.0f} {1e3 * p50:8.0f} {1e3 * p95:8.0f} {largest / 1e3:11.0f}")
    finally:
        process.terminate()
        process.wait(timeout=30)


if __name__ == "__main__":
    main()
