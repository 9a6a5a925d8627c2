"""How long the command line takes to answer, and a local run to act: `python tests/bench/start.py [runs]`.

`agentevolve --help` and `import agentevolve`, and the time from starting `agentevolve run` with the local model (weights in the
cache) to its first finished attempt of one task, each as minimum, median and maximum over the runs, in processes of their own.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

CLI = [sys.executable, "-c", "from agentevolve.cli.main import main; main()"]


def timed(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def acting() -> float:
    with tempfile.TemporaryDirectory() as folder:
        return timed([*CLI, "run", "twc-easy", "--model", "local/smollm2-135m", "--limit", "1", "--out", f"{folder}/run"])


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    what: dict[str, Callable[[], float]] = {
        "import agentevolve": lambda: timed([sys.executable, "-c", "import agentevolve"]),
        "agentevolve --help": lambda: timed([*CLI, "--help"]),
        "run: start, act, finish one task": acting,
    }
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, n = {runs}")
    for name, measure in what.items():
        measure()
        seconds = [measure() for _ in range(runs)]
        print(f"{name:34} {min(seconds):6.2f} {statistics.median(seconds):6.2f} {max(seconds):6.2f} s (min, median, max)")


if __name__ == "__main__":
    main()
