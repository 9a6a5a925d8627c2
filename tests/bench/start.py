"""How long the command line takes to answer, and a local run to act: `python tests/bench/start.py [runs]`.

`agentevolve --help`, `tasks`, `methods` and `import agentevolve`; the time from starting `agentevolve run` with a server that
answers at once to its first answered step; and that with the local model (weights in the cache) to its first finished attempt of
one task. Each as minimum, median and maximum over the runs, in processes of their own.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from overhead import served

CLI = [sys.executable, "-c", "from agentevolve.cli.main import main; main()"]


def timed(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def acting() -> float:
    with tempfile.TemporaryDirectory() as folder:
        return timed([*CLI, "run", "twc-easy", "--model", "local/smollm2-135m", "--limit", "1", "--out", f"{folder}/run"])


def answered(url: str) -> float:
    """Until the notes of what is being paid for say that the first call has its answer."""
    asked = ["--model", "hosted_vllm/m", "--api-base", url, "--limit", "1"]
    with tempfile.TemporaryDirectory() as folder:
        began, notes = time.perf_counter(), Path(folder) / "run" / "underway.jsonl"
        command = [*CLI, "run", "twc-easy", *asked, "--out", f"{folder}/run"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while not (notes.is_file() and b'"usage"' in notes.read_bytes()):
                assert process.poll() is None, "it ended without a step"
                time.sleep(0.005)
            return time.perf_counter() - began


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with served(0.0) as url:
        measured(runs, url)


def measured(runs: int, url: str) -> None:
    what: dict[str, Callable[[], float]] = {
        "import agentevolve": lambda: timed([sys.executable, "-c", "import agentevolve"]),
        "agentevolve --help": lambda: timed([*CLI, "--help"]),
        "agentevolve tasks": lambda: timed([*CLI, "tasks"]),
        "agentevolve methods": lambda: timed([*CLI, "methods"]),
        "run, a server: until its first step": lambda: answered(url),
        "run, local: until one task is done": acting,
    }
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, n = {runs}")
    for name, measure in what.items():
        measure()
        seconds = [measure() for _ in range(runs)]
        print(f"{name:36} {min(seconds):6.2f} {statistics.median(seconds):6.2f} {max(seconds):6.2f} s (min, median, max)")


if __name__ == "__main__":
    main()
