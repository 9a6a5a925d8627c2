"""How a large run opens: with and without what was counted of it, its report, one attempt, planning, adding attempts.

    python tests/bench/scale.py --attempts 10000 100000 1000000 --turns 10 --folder /tmp/scale

Makes an evolution of 20 rounds (its attempts are told, not lived: 200 bodies of usual lengths, each under many ids), and of
`--measured` attempts one run of a single policy, `agentevolve run`; measures each in processes of its own; deletes it; and prints
a Markdown table. A million attempts of ten turns are 8 GB. Seconds are those on the clock; processor time is beside them, since
the machine may be busy. Goals for a million attempts: opened in 10 s and 2 GiB, reported in 10 s.

"cold" is the first time that anybody opens a run whose journal came without a checkpoint; a run that was made by agentevolve has
one. "opened" is `read_run` on a warm disk cache, without Python's start and imports, which "report", a whole command, has too.

Measured on two cores (x86_64, Python 3.11); those with a million attempts on a quiet machine, the others beside other work of
higher priority, where a process had 5 to 10% of a core: there the clock says what the others did, processor time is what it
takes. Seconds; memory of the process at most.

| attempts, of 10 turns | | processor, s | clock, s | memory, GiB |
|---|---|---|---|---|
| 10,000 (0.08 GB), before there was any of this | opened | 3.6 | 183 | 0.51 |
| | report | 6.2 | 258 | |
| 10,000 (0.08 GB, checkpoint 2 MB) | cold | 0.97 | 102 | 0.07 |
| | opened | 0.007 | 0.2 | 0.04 |
| | report | 2.0 | 47 | 0.17 |
| 100,000 (0.78 GB in 6 files, checkpoint 20 MB) | cold | 8.8 | 196 | 0.10 |
| | opened | 0.05 | 0.9 | 0.06 |
| | report | 4.4 | 70 | 0.19 |
| 100,000 of one policy (0.77 GB in 6 files, checkpoint 18 MB) | cold | 8.8 | 202 | 0.10 |
| | report | 2.5 | 74 | 0.16 |
| 1,000,000 (7.75 GB in 58 files, checkpoint 196 MB) | cold | 70 | 70 | 0.15 |
| | opened | 0.26 | 0.26 | 0.05 |
| | report | 6.3 | 6.1 | 0.18 |
| | one attempt by its id | 0.0003 | 0.0003 | 0.05 |
| | planned again: a million ids looked for | 3.2 | 3.2 | 0.16 |
| | costs, learning, and all 47,950 attempts of a round, read | 17.5 | 17.5 | 1.88 |
| | opened to write, 100 added, closed | 0.62 | 0.63 | 0.10 |
| 1,000,000 of one policy (7.74 GB in 58 files, checkpoint 182 MB) | cold | 65 | 65 | 0.15 |
| | opened | 0.20 | 0.20 | 0.05 |
| | report | 8.1 | 8.0 | 0.97 |
| | planned again: a million ids looked for | 2.9 | 2.9 | 0.14 |
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from view import attempt, line

from agentevolve.run.checkpoint import CHECKPOINT
from agentevolve.run.folder import JOURNAL, OPENING, Run
from agentevolve.run.segments import Segments

ROUNDS, SAMPLES, BODIES, ENTRIES = 20, 8, 200, 1_000
ARMS = ("memory", "distilled")
MEASURED = 1_000  # held-out tasks, at most
START = """
import json, resource, sys, time
from pathlib import Path
from agentevolve.run.folder import Run, read_run
place, id = Path(sys.argv[1]), sys.argv[2]
"""
BEGIN = "clock, cpu = time.perf_counter(), time.process_time()"
END = """
spent = [time.perf_counter() - clock, time.process_time() - cpu]
print(json.dumps([*spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""
STEPS = {
    "cold": "run = read_run(place)",
    "opened": "run = read_run(place)",
    "one attempt by its id": "run = read_run(place); MARK; run.trajectories[id]",
    "planned again (all ids)": (
        "run = read_run(place); ids = [*run.trajectories]; MARK; assert all(id in run.trajectories for id in ids)"
    ),
    "costs, learning, acquired of a round": (
        "run = read_run(place); run.round = 1; MARK; run.costs(); run.learning(); run.acquired(1)"
    ),
    "opened to write, 100 added": (
        "one = read_run(place).trajectories[id]; MARK; run = Run(place, quiet=True);"
        "[run.add(one.model_copy(update={'id': f'{time.time_ns()}/{n}'})) for n in range(100)]; run.close()"
    ),
    "inspector's index": "from agentevolve.view.index import ReadIndex; MARK; ReadIndex(place).update()",
}


class Bodies:
    """Lines of attempts, made of a few bodies: only what says which attempt it is differs."""

    def __init__(self, turns: int) -> None:
        rng = random.Random(0)
        made = [attempt(rng, "ID", "PHASE", "TASK", "train", turns, ENTRIES) for _ in range(BODIES)]
        self._parts = [self._split(line("trajectory", data=one.model_dump(mode="json"))) for one in made]
        self._rng = rng

    def line(self, id: str, phase: str, task: str, split: str, sample: int) -> bytes:
        """The line of an attempt."""
        before, between, after = self._rng.choice(self._parts)
        told = f'"id":"{id}","task":{{"id":"{task}","env":"bench","split":"{split}"'
        return b"%s%s%s%s%s" % (before, told.encode(), between, f'"phase":"{phase}","sample":{sample}'.encode(), after)

    @staticmethod
    def _split(text: bytes) -> tuple[bytes, bytes, bytes]:
        before, rest = text.split(b'"id":"ID","task":{"id":"TASK","env":"bench","split":"train"')
        between, after = rest.split(b'"phase":"PHASE","sample":0')
        return before, between, after


def evolved(attempts: int, bodies: Bodies) -> Iterator[bytes]:
    """The lines of an evolution with so many attempts: in each round attempts to learn from, and each arm measured."""
    measured = min(MEASURED, attempts // 200)
    acquired = (attempts - measured * (1 + ROUNDS * len(ARMS))) // ROUNDS
    ids = {"base": [f"val/base/v/{n}/0" for n in range(measured)]}
    yield from (bodies.line(id, "val/base", f"v/{n}", "val", 0) for n, id in enumerate(ids["base"]))
    for number in range(1, ROUNDS + 1):
        for n in range(acquired):
            task, sample = f"t/{n // SAMPLES}", n % SAMPLES
            yield bodies.line(f"{number}/acquire/{task}/{sample}", f"{number}/acquire", task, "train", sample)
        for arm in ARMS:
            phase = f"{number}/val/{arm}"
            ids[arm] = [f"{phase}/v/{n}/0" for n in range(measured)]
            yield from (bodies.line(id, phase, f"v/{n}", "val", 0) for n, id in enumerate(ids[arm]))
        yield line("fact", name=f"evaluation {number}/val", data=ids)
        yield line("fact", name=f"gate {number}/val", data=verdict(measured))


def verdict(tasks: int) -> dict[str, Any]:
    """What a gate might have said."""
    differences = {arm: {"mean": 0.0, "low": -0.1, "high": 0.1} for arm in ARMS}
    return {"promoted": "memory", "holder": "base", "tasks": tasks, "of": tasks, "differences": differences}


def single(attempts: int, bodies: Bodies) -> Iterator[bytes]:
    """The lines of one policy's attempts at many tasks."""
    for n in range(attempts):
        task, sample = f"t/{n // SAMPLES}", n % SAMPLES
        yield bodies.line(f"run/{task}/{sample}", "run", task, "test", sample)


def make(place: Path, lines: Iterator[bytes]) -> None:
    """A run whose journal has these lines."""
    Run(place, quiet=True).close()
    journal = Segments(place / JOURNAL, OPENING)
    journal.append({"kind": "fact", "name": "made for", "data": "a benchmark"})
    for text in lines:
        path = journal.paths()[-1]
        with path.open("ab") as file:
            file.write(text)
            size = file.tell()
            while size < journal.limit and (text := next(lines, b"")):
                size += file.write(text)
        journal.append()  # closes what is full


def step(name: str, place: Path, id: str) -> tuple[float, float, float]:
    """Seconds on the clock, of the processor, and the process's memory at most, in GiB, of a step of a process of its own."""
    code = STEPS[name]
    code = code.replace("MARK", BEGIN) if "MARK" in code else f"{BEGIN}; {code}"
    done = subprocess.run([sys.executable, "-c", f"{START}\n{code}\n{END}", str(place), id], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    clock, cpu, memory = json.loads(done.stdout.splitlines()[-1])
    return clock, cpu, memory / 2**20


def command(*words: str) -> tuple[float, float, float]:
    """The same of a whole command of agentevolve's."""
    start = time.perf_counter()
    code = "from agentevolve.cli.main import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, words
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20


def measure(place: Path, what: str, attempts: int, id: str, view: bool) -> None:
    """Print the rows of a run."""
    sizes = [path.stat().st_size / 1e9 for path in Segments(place / JOURNAL).paths()]

    def row(name: str, found: tuple[float, float, float]) -> None:
        clock, cpu, memory = found
        print(f"| {attempts:,} {what} | {name} | {clock:.3g} | {cpu:.3g} | {memory:.2f} |", flush=True)

    for name in STEPS:
        if name != "inspector's index" or view:
            row(name, step(name, place, id))
        if name == "opened":
            row("report", command("report", str(place)))
    counted = place / CHECKPOINT
    kept = f"{counted.stat().st_size / 1e6:.0f} MB" if counted.is_file() else "none"
    print(f"| {attempts:,} {what} | journal {sum(sizes):.2f} GB in {len(sizes)} files, checkpoint {kept} | | | |", flush=True)


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempts", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--measured", type=int, nargs="*", default=[])
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="Where there is room.")
    parser.add_argument("--view", action="store_true", help="Make the inspector's index too.")
    given = parser.parse_args()
    bodies = Bodies(given.turns)
    made = [("evolved", n, evolved(n, bodies), "1/acquire/t/0/0") for n in given.attempts]
    made += [("of one policy", n, single(n, bodies), "run/t/0/0") for n in given.measured]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| attempts | what | clock, s | processor, s | memory, GiB |\n|---|---|---|---|---|")
    for what, attempts, lines, id in made:
        place = Path(tempfile.mkdtemp(prefix="agentevolve-scale-", dir=given.folder)) / "run"
        try:
            make(place, lines)
            measure(place, what, attempts, id, given.view)
        finally:
            shutil.rmtree(place.parent, ignore_errors=True)


if __name__ == "__main__":
    main()
