"""Runs code that a model wrote, and tests that judge it, without either reaching the other or anything else.

    judged = judge(prompt, code, name, solution, tests)   # Judged(passed=False, why="in f([1]): ZeroDivisionError: …", walls=(…))

Three processes take part, so that the verdict cannot be forged. Ours starts a *keeper* (`keeper.py`) in a bare interpreter. That
one forks the *candidate*, and only then reads the tests, which stay with it: the candidate gets the arguments of one call at a
time and answers with plain data. Whatever else it does (leaving early, printing words of success, changing `assert`'s helpers or
builtins, searching its memory, writing to its pipes) is a wrong answer at most. Around the candidate stand the walls of
`walls.py`, raised before it gets the code; they are Linux's, on x86_64 and aarch64. It has no environment variables, no standard
input, and its output goes to /dev/null.

What is protected: files (in the jail and under Landlock it can read Python's standard library and the system's shared libraries,
without site-packages; it can write and delete nothing), the network (also loopback), other processes (it can neither see, signal
nor trace them), memory, processor time, disk. It starts no process and no thread, so it leaves none behind, and ends with us.

What is not: the kernel itself (a hole in it that the few calls left open can reach), a core for as long as the code's seconds
last, and a solution that was learnt by heart. Where there is Landlock and no jail, whether a file exists and how large it is can
still be asked. Where there is neither, root starts the candidate as `nobody`, who can read what every user of the machine can;
others are refused. The price: threads are refused even where they would do no harm; what a function does to its arguments is
not seen by the tests; and a value of another kind than data (numbers, text, bytes, lists, tuples, sets, mappings, and iterators,
of which 100,000 items are taken) is equal to nothing.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from agentevolve.protocols import AgentevolveError

WALL = 4  # the candidate may take this many times its seconds of processor time by the clock
MEMORY = 512 << 20  # bytes of its address space
FILES = 64  # open at a time
# the keeper's files alone are imported, by their usual names, and nothing else of this package
START = """
import sys, types
name = ""
for part in ("agentevolve", "environments", "support", "sandbox"):
    name = f"{name}.{part}".lstrip(".")
    sys.modules[name] = types.ModuleType(name)
sys.modules[name].__path__ = [sys.argv.pop(1)]
from agentevolve.environments.support.sandbox.keeper import main
main()
"""


class SandboxBroken(RuntimeError):
    """The keeper gave no verdict, for a reason that lies outside the code."""


class Judged(NamedTuple):
    """Whether all tests passed, else why not; and which walls stood."""

    passed: bool
    why: str
    walls: tuple[str, ...]


def judge(prompt: str, code: str, name: str, solution: str, tests: str, *, seconds: int = 5) -> Judged:
    """Whether the function `name`, which `code` makes of `prompt`, passes `tests`; `solution` is a right body for the prompt.

    `tests` defines `check(candidate)`. The code may use `seconds` of processor time in all, and `WALL` times as many by the
    clock. Raises AgentevolveError where the walls cannot be had, SandboxBroken when there is no verdict.
    """
    order = {"parent": os.getpid(), "wall": WALL * seconds, "limits": [seconds, MEMORY, FILES], "files": _files()}
    order["own"] = [seconds, 4 * MEMORY]
    job = {"prompt": prompt, "code": code, "name": name, "solution": solution, "tests": tests}
    said = _asked(json.dumps(order), json.dumps(job), WALL * seconds + 10)
    if "broken" in said:
        raise AgentevolveError(f"code that a model wrote is not run without walls around it: {said['broken']}")
    return Judged(said["passed"], said["why"], tuple(said["walls"]))


def check_walls() -> tuple[str, ...]:
    """The walls that stand on this machine. Raises AgentevolveError where the needed ones cannot be had."""
    if sys.platform != "linux":
        raise AgentevolveError(f"code that a model wrote is run on Linux alone, with walls around it; this is {sys.platform}")
    return _walls_here()


@functools.cache
def _walls_here() -> tuple[str, ...]:
    return judge("def f():\n", "    return 1\n", "f", "    return 1\n", "def check(f):\n    assert f() == 1\n").walls


def _asked(order: str, job: str, patience: float) -> dict[str, Any]:
    """The keeper's verdict. It is gone when this returns or raises; the candidate, which dies with it, a moment later at most."""
    bare = ["-S", "-s", "-P", "-X", "utf8"]  # no site-packages, nothing of the user's, no current folder
    # the order of a set's elements, which a solution may lean on, is the same each time
    settings = {"PYTHONHASHSEED": "0"} | {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, *bare, "-c", START, str(Path(__file__).parent), order],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=settings, cwd="/", start_new_session=True,
    )  # fmt: skip
    try:
        said, complaint = process.communicate(job.encode(), timeout=patience)
    except BaseException as error:
        process.kill()  # the candidate dies with it
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise SandboxBroken(f"no verdict within {patience:g} s") from None
        raise
    if process.returncode == -signal.SIGXCPU and said:  # the walls stood: it had an answer of the candidate's in its hands
        said += json.dumps({"passed": False, "why": "its answer is endless to work with"}).encode()
    found = {name: value for line in said.splitlines() for name, value in json.loads(line).items()}
    if not {"passed", "broken"} & set(found):
        last = complaint.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise SandboxBroken(f"no verdict (exit {process.returncode}): {''.join(last)}")
    return found


@functools.cache
def _files() -> tuple[list[str], list[str], list[str]]:
    """The folders of Python's library and the system's shared libraries; all that may be read in them; what is hidden.

    Other people's packages are left out: the problems and their solutions may be among them.
    """
    library, kind = os.path.dirname(os.__file__), getattr(sys.implementation, "_multiarch", "")
    beside, packages = os.path.dirname(library), ("site-packages", "dist-packages")
    shared = ["/lib64", "/usr/lib64", "/nix/store"] + ([f"/lib/{kind}", f"/usr/lib/{kind}"] if kind else [])
    shared = [folder for folder in shared if os.path.isdir(folder)]
    readable = [entry.path for entry in os.scandir(library) if entry.name not in packages]
    readable += [entry.path for entry in os.scandir(beside) if ".so" in entry.name]
    hidden = [f"{place}/{name}" for place in (library, f"{beside}/python3") for name in packages]
    return [beside, *shared], readable + shared, hidden
