"""How fast the inspector is on a large run and a large comparison: opening cold and warm, and the first byte of every page.

    python tests/bench/view.py --attempts 10000 --turns 10 --entries 100000 --methods 30 --seeds 3 --tries 20 --starts 3

Makes the run (its attempts are told, not lived) and the comparison (of one method, lived at a small world, and of copies of it)
in a temporary folder, serves them in a process of its own, and prints three tables: what is asked at once after a start, each in
a server of its own (on an index that is there, and on none); what nobody has asked for before; and what was asked before. Beside
the clock stands the server's processor time, all its threads together: on a busy machine the clock says how busy it was.
Goals: cold 3 s, warm 0.5 s, first byte 300 ms at the 95th percentile, no answer over 1 MB.
On two quiet cores (AMD EPYC, Python 3.11): the run opens cold in 0.68 s, warm in 0.9 ms. The slowest page's first byte at the
95th percentile (3 starts or 20 tries a page): 216 ms at once after a start on an index that is there, 209 ms for what nobody has
asked for before, 245 ms asked again (both a map's picture; over all pages 127 and 53). On no index 1.97 s: the map, of 100,000
entries that are being read, and the page says so. No answer over 709 kB.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psutil
import yaml

from agentevolve.cli.compare import compared
from agentevolve.config import Comparison
from agentevolve.loop.compare import CONFIG
from agentevolve.memory import HashEmbedder, open_memory
from agentevolve.records import Entry, Looked, PolicyStamp, Task, Trajectory, Turn, Usage
from agentevolve.run.folder import JOURNAL, VIEW, Run
from agentevolve.view.index import ReadIndex

WORDS = [
    f"{first}{second}" for first in ("lamp", "door", "coin", "stove", "apple", "peach") for second in ("", "s", "like", "room")
]
ARMS = ("base", "memory", "distilled")
KINDS = ("insight", "demo", "reflection", "workflow")
ROUNDS = 5
VAL = 200  # tasks that are measured with each arm


class Wide(HashEmbedder):
    """Hashed words, in as many dimensions as MiniLM has."""

    dim = 384
    name = identity = "hash-384"


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
    about = {"task": f"t/{number % 500}", "round": 1 + number % ROUNDS, "kind": KINDS[number % 7 % len(KINDS)]}
    return Entry(id=f"insight/{number}", key=text(rng, 12), text=said, env="bench", **about)


def make(place: Path, attempts: int, turns: int, entries: int) -> None:
    """A run with a memory."""
    run = Run(place, quiet=True)
    run.once("made for", lambda: "a benchmark")
    run.close()
    with (place / JOURNAL).open("ab") as file:
        file.writelines(told(attempts, turns, entries))
    rng = random.Random(1)
    with open_memory(place / "memory", embedder=Wide()) as memory:
        memory.add([remembered(rng, number) for number in range(entries)])
        for kind in KINDS:
            memory.recall("lamp", env="bench", k=1, kind=kind)  # embeds them: the map is drawn of the vectors
        memory.note({f"insight/{number}": (number % 21 - 10) / 20 for number in range(0, entries, 3)}, ROUNDS)
        for number in range(0, entries, max(1, entries // 1_000)):
            memory.retire(f"insight/{number}", ROUNDS, "a benchmark")


def compare(place: Path, methods: int, seeds: int, held: int) -> None:
    """A comparison of so many methods and seeds: one of them lived, the others its copies."""
    values = {
        "tasks": "simonsays-easy",
        "model": "random",
        "methods": ["memento"],
        "rounds": 3,
        "seeds": list(range(seeds)),
        "train": {"tasks": 8},
        "held": {"tasks": held},
        "budget": {"episodes": 1_000},
        "embedder": "hash",
    }
    compared(Comparison.model_validate(values), place, False, True)
    names = [f"method-{number:02}" for number in range(methods)]
    for lived in place.glob("*/seed-*/memento"):
        for name in names:
            shutil.copytree(lived, lived.with_name(name))
        shutil.rmtree(lived)
    asked = yaml.safe_load((place / CONFIG).read_text())
    asked["methods"] = [{"method": "memento", "label": name} for name in names]
    (place / CONFIG).write_text(yaml.safe_dump(asked))


def opened(place: Path) -> float:
    """Seconds until the index of the run knows its attempts."""
    start = time.perf_counter()
    index = ReadIndex(place)
    index.update()
    index.ask("SELECT count(*) FROM attempts")
    took = time.perf_counter() - start
    index.close()
    return took


def asked(port: int, address: str) -> tuple[float, int, bytes]:
    """Seconds until the first byte of an answer, its status, and the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    start = time.perf_counter()
    connection.request("GET", address)
    answer = connection.getresponse()
    first = answer.read(1)
    took = time.perf_counter() - start
    said = first + answer.read()
    connection.close()
    assert answer.status in (200, 202), (address, answer.status)
    return took, answer.status, said


def addresses(attempts: int, entries: int, number: int) -> dict[str, str]:
    """For each kind of page an address, another one at each try."""
    base, one = "/runs/bench", quote(f"1/acquire/t/{number % max(1, attempts // 20)}/0")
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
        **{f"memory, {name}": f"{base}/memory?{query}" for name, query in filters(number).items()},
        "map": f"{base}/map",
        **{f"map, {name}": f"{base}/map?{query}" for name, query in filters(number).items()},
        "map, pressed": f"{base}/map?colour=round&x={30 + 20 * number}&y=200",
        "map, closer": f"{base}/map?zoom={2 ** (number % 6 + 1)}&across={(number * 997) % 10_000}",
        "map's picture": f"{base}/map.png?colour=credit&round={1 + number % ROUNDS}",
        "map's picture, closer": f"{base}/map.png?zoom=2&across={2_500 + number * 100}",
        "entry": f"{base}/entry?id={quote(f'insight/{number % max(1, entries)}', safe='')}",
        "policies": f"{base}/policies",
        "comparison": "/comparisons/compared",
    }


def filters(number: int) -> dict[str, str]:
    """The filters of entries: another one at each try."""
    kind, word, other = KINDS[number % len(KINDS)], WORDS[number % len(WORDS)], WORDS[(number * 7 + 3) % len(WORDS)]
    return {
        "by kind": f"kind={kind}&round={1 + number // len(KINDS) % ROUNDS}",
        "by credit": f"sort=gain&round={1 + number % ROUNDS}&colour=credit",
        "by words": f"text={word}+{other}&state=there",
        "by task": f"task=t/{number}",
    }


AT_ONCE = ("runs", "memory", "memory, by kind", "memory, by credit", "memory, by words", "map", "map, by kind", "map, by words")
AT_ONCE += ("entry", "comparison")


class Server:
    """The inspector of a folder in a process of its own."""

    def __init__(self, place: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-c", "from agentevolve.cli.main import main; main()", "view", str(place)]
        self.process = subprocess.Popen([*command, "--port", str(self.port)], stderr=subprocess.DEVNULL)
        self.told = psutil.Process(self.process.pid)
        while socket.socket().connect_ex(("127.0.0.1", self.port)):
            time.sleep(0.02)
        asked(self.port, "/static/style.css")  # it listens before it has read its own code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=300)

    def ask(self, address: str) -> tuple[float, float, int, bytes]:
        """Seconds until the first byte, the processor's seconds until the whole answer, its status, the answer."""
        before = self.told.cpu_times()
        took, status, said = asked(self.port, address)
        after = self.told.cpu_times()
        return took, after.user + after.system - before.user - before.system, status, said

    def until_whole(self, address: str) -> float:
        """Seconds until the page has all that it says it is making."""
        path, sign, query = address.partition("?")
        twin, start = ("/index" if path == "/" else path) + f".json{sign}{query}", time.perf_counter()
        while True:
            _, status, said = asked(self.port, twin)
            told = json.loads(said)
            parts = [told, *(told.get("runs", []) + told.get("memories", []) if path == "/" else ())]
            if status == 200 and not any(one.get("making") or one.get("state") == "being read" for one in parts):
                return time.perf_counter() - start
            time.sleep(0.2)


def row(name: str, found: list[tuple[float, float, int, bytes]], *more: str) -> None:
    """Print a line of a table."""
    figures = []
    for values in ([one[0] for one in found], [one[1] for one in found]):
        ascending = sorted(values)
        figures += [ascending[len(values) // 2], ascending[ceil(0.95 * len(values)) - 1]]
    largest = max(len(one[3]) for one in found)
    cells = [*(f"{1e3 * value:8.0f}" for value in figures), f"{largest / 1e3:11.0f}"]
    print(" ".join([f"{name:26}", *cells, *more]), flush=True)


def heading(title: str, *more: str) -> None:
    """Print a table's title and columns."""
    names = [f"{name:>8}" for name in ("p50 ms", "p95 ms", "CPU p50", "CPU p95")]
    print(f"\n{title}\n{'page':26} {' '.join(names)} {'largest kB':>11} {' '.join(more)}", flush=True)


def at_once(place: Path, given: argparse.Namespace, title: str, cold: bool) -> None:
    """What is asked first of a server that has just begun to listen."""
    heading(title, "  'being made'   whole after s")
    everything = []
    for page in AT_ONCE:
        found, whole = [], []
        for number in range(given.starts):
            if cold:
                for one in place.rglob(f"{VIEW}*"):
                    one.unlink()
            with Server(place) as server:
                address = addresses(given.attempts, given.entries, number)[page]
                found.append(server.ask(address))
                whole.append(server.until_whole(address))
        everything += found
        being = sum(status == 202 or b'class="making"' in said or b"takes a moment" in said for _, _, status, said in found)
        row(page, found, f"{being:6} of {len(found)}", f"{max(whole):16.1f}")
    row("all", everything)


def serve(place: Path, given: argparse.Namespace) -> None:
    """Ask a server that has read all for each page `tries` times, each time another one; and for the same once more."""
    with Server(place) as server:
        start = time.perf_counter()
        for page in ("runs", "run", "map", "memory", "comparison"):
            server.until_whole(addresses(given.attempts, given.entries, 0)[page])
        server.ask("/runs/bench/attempts?text=lamp")
        server.ask("/runs/bench/map.png")
        print(f"\nall of it read {time.perf_counter() - start:.1f} s after it listens")
        for title in ("Asked for the first time", "Asked again"):
            heading(title)
            everything = []
            for page in addresses(given.attempts, given.entries, 0):
                found = [server.ask(addresses(given.attempts, given.entries, number)[page]) for number in range(given.tries)]
                everything += found
                row(page, found)
            row("all", everything)


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    numbers = {
        "attempts": 10_000,
        "turns": 10,
        "entries": 100_000,
        "methods": 30,
        "seeds": 3,
        "held": 40,
        "tries": 20,
        "starts": 3,
    }
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agentevolve-bench-") as folder:
        root = Path(folder)
        place = root / "bench"
        make(place, given.attempts, given.turns, given.entries)
        compare(root / "compared", given.methods, given.seeds, given.held)
        print(f"{given.attempts:,} attempts of {given.turns} turns, journal {(place / JOURNAL).stat().st_size / 1e6:.0f} MB")
        journals = [path.stat().st_size for path in (root / "compared").rglob(JOURNAL)]
        print(f"{given.entries:,} entries; {len(journals)} compared runs, journals {sum(journals) / 1e6:.0f} MB")
        print(f"cold: {opened(place):.2f} s, index {(place / VIEW).stat().st_size / 1e6:.0f} MB")
        print(f"warm: {1e3 * min(opened(place) for _ in range(3)):.1f} ms")
        at_once(root, given, "Asked at once after a start, no index there", True)
        with Server(root) as server:
            for page in ("map", "comparison"):
                server.until_whole(addresses(given.attempts, given.entries, 0)[page])
        at_once(root, given, "Asked at once after a start, the index there", False)
        serve(root, given)


if __name__ == "__main__":
    main()
