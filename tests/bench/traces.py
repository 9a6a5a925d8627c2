"""What traces cost a step: `PYTHONPATH=tests:tests/doors python tests/bench/traces.py [repeats]`.

A step is a request to a server on loopback, in a process of its own, by LiteLLM, and an action in a small world. Runs of 8
attempts of 25 steps, one at a time, with traces off, on, and on with content, sent to a receiver in a process of its own; in
turn, so that what else the machine does falls on all. Told are this process's processor time and the wall time a step, the
median of the repeats and the least; and from how long a step on that is less than 2 % of it.
"""

import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from faulty import Server, walk
from receiver import Receiver
from worlds import make_tasks, new_run

from agentevolve.act.rollout import rollout
from agentevolve.doors import traces
from agentevolve.policy import ModelOptions, Policy

ATTEMPTS, STEPS = 8, 25


def serve(pipe) -> None:
    """A model's server and a receiver, until told to end."""
    with Server(walk) as server, Receiver() as receiver:
        pipe.send((server.url, receiver.url))
        pipe.recv()
        pipe.send(len(receiver.spans))


def measured(url: str) -> tuple[float, float]:
    """Processor and wall time of a step, in milliseconds."""
    policy = Policy(model="openai/test", api_base=url, options=ModelOptions(tries=1))
    tasks = make_tasks(ATTEMPTS, length=STEPS, limit=STEPS + 1)
    with tempfile.TemporaryDirectory() as folder:
        run = new_run(Path(folder) / "r", workers=1)
        began, busy = time.perf_counter(), time.process_time()
        made = rollout(policy, tasks, run, phase="1/acquire")
        took = time.perf_counter() - began, time.process_time() - busy
        run.close()
    steps = sum(len(one.turns) for one in made)
    assert steps == ATTEMPTS * STEPS
    return took[1] / steps * 1e3, took[0] / steps * 1e3


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    process.start()
    url, receiver = mine.recv()
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver
    found: dict[str, list[tuple[float, float]]] = {"off": [], "on": [], "on, with content": []}
    measured(url)
    for _ in range(repeats):
        for name, times in found.items():
            if name != "off":
                traces.start(content=name != "on")
            times.append(measured(url))
            traces.stop()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, n = {repeats}"
    )
    cost = {}
    for name, times in found.items():
        busy, wall = zip(*times, strict=True)
        cost[name] = statistics.median(busy), min(busy)
        told = f"{cost[name][0]:6.3f} ({min(busy):.3f}) ms processor, {statistics.median(wall):6.3f} ({min(wall):.3f}) ms wall"
        print(f"{name:17} {told} a step: median (least)")
    for name in ("on", "on, with content"):
        more = max(one - other for one, other in zip(cost[name], cost["off"], strict=True))
        print(f"{name}: at most {more:.3f} ms more a step, which is 2 % of a step of {more / 0.02:.0f} ms")
    mine.send("end")
    print(f"{mine.recv()} spans arrived")
    process.join()


if __name__ == "__main__":
    main()
