"""Reasoning Gym: a hundred kinds of generated problems with one answer each: sums, algebra, logic, words, grids, games.

Description
    `Task.data`: `dataset`, one of the package's by name; `config`, its options (what is not named keeps the package's default;
    `seed` and `size` are ours); `tries`, how many answers are taken (1 by default, at most 100). The package runs in a process of
    its own, one for all environments of ours.
Observation
    The question. After a wrong answer: "Wrong", or "Partly right" where the dataset gives part of the score, and the tries left.
Actions
    The answer. If there is <answer>…</answer> then what the last pair holds counts, else all of it.
Reward
    The dataset's own score of the best answer so far, in [0, 1]; an empty answer scores 0. Some datasets give a little for the
    right form. Where the package would execute an answer as Python only harmless ones are scored (numbers, formulas, literals).
Termination
    When an answer scores 1, or after the last try.
Splits
    Ours, by seed: train 0–9999, val 10000–19999, test 20000–29999; others are refused. A question belongs to one split alone, by
    its checksum: a task's item is the first one that is made from `seed`, `seed` + 30,000, … and belongs to its split. So none is
    in two splits. A dataset too small to be in all of them is refused; inside a split a small one repeats itself.
Source
    Stojanovski et al., Reasoning Gym (arXiv 2505.24760), the PyPI package `reasoning-gym` (Apache-2.0).
"""

from __future__ import annotations

import functools
import random
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agentevolve.environments.support.servant import Servant
from agentevolve.environments.support.settings import read_settings
from agentevolve.environments.support.splits import held_out
from agentevolve.protocols import AgentevolveError, Environment, Step
from agentevolve.records import SOLVED, Task

NEEDS = ("reasoning_gym",)
OTHERS = range(10_000_000, 11_000_000)  # seeds of items that are no task's: their answers are random ones
NOTES = "Answer the question. Reply with the answer alone, or put it between <answer> and </answer>."
LONGEST = 20_000  # characters of an answer that are read
_DEFAULTS: dict[str, Any] = {"dataset": "", "config": {}, "tries": 1}
_servant = Servant("reasoner.py")


def make() -> Environment:
    """A new environment."""
    return ReasoningGym()


def check(data: dict[str, Any]) -> None:
    """Raise AgentevolveError unless `data` is what the head of this file says of Task.data; a wrong option shows at reset."""
    dataset, config, tries = read_settings(data, _DEFAULTS)
    known = _datasets()
    if not isinstance(dataset, str) or not dataset or (known and dataset not in known):
        raise AgentevolveError(f"settings.dataset: unknown dataset {dataset!r}; known: {', '.join(known) or 'the package tells'}")
    if not isinstance(config, dict) or set(config) & {"seed", "size"}:
        raise AgentevolveError(f"settings.config: {config!r} is not a mapping of options other than seed and size")
    if type(tries) is not int or not 1 <= tries <= 100:
        raise AgentevolveError(f"settings.tries: {tries!r} is not a whole number from 1 to 100")


@functools.cache
def _datasets() -> tuple[str, ...]:
    """The package's datasets, read from its text, since to import it takes seconds; none where it is not installed."""
    spec = find_spec("reasoning_gym")
    places = (spec and spec.submodule_search_locations) or ()
    texts = (path.read_text("utf-8", "replace") for place in places for path in Path(place).rglob("*.py"))
    return tuple(sorted({name for text in texts for name in re.findall(r'^DATASET_NAME = "(\w+)"', text, re.MULTILINE)}))


class ReasoningGym:
    """One question at a time; it holds nothing that would have to be given back."""

    def __init__(self) -> None:
        self._left = 0

    def reset(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Start `task`. Raises AgentevolveError on unusable data or seed, RuntimeError when the package fails."""
        question, self._item = _opened(task)
        self._left, self._score = (_DEFAULTS | task.data)["tries"], 0.0
        return question.strip(), {"score": 0.0, "notes": NOTES}

    def step(self, action: str) -> Step:
        """Score one answer. Raises RuntimeError without a running episode or when the package fails."""
        if not self._left:
            raise RuntimeError("no episode is running: call reset first")
        score = self._scored(action[:LONGEST])
        before, self._score = self._score, max(self._score, score)
        self._left = 0 if score >= SOLVED else self._left - 1
        again = {0: "", 1: " One try is left."}.get(self._left, f" {self._left} tries are left.")
        said = "Right." if score >= SOLVED else f"Partly right: {score:.2f} of 1.{again}" if score >= 0.1 else f"Wrong.{again}"
        return Step(said, self._score - before, not self._left, False, {"score": self._score})

    def oracle(self, task: Task) -> list[str]:
        """The shipped answer. Raises AgentevolveError where the dataset has none."""
        answer = _servant.ask("answer", **_opened(task)[1])
        if answer is None:
            raise AgentevolveError(f"task {task.id}: the dataset {task.data['dataset']} ships no answer to this question")
        return [answer]

    def sample(self, rng: random.Random) -> str:
        """The answer of another item of the dataset."""
        return _servant.ask("answer", **{**self._item, "seed": rng.choice(OTHERS)}) or "0"

    def close(self) -> None:
        """Nothing to give back."""

    def _scored(self, action: str) -> float:
        answers = re.findall(r"<answer>(.*?)(?:</answer>|\Z)", action, re.DOTALL)
        answer = answers[-1] if answers else action
        try:
            return float(_servant.ask("score", reply=answer, **self._item)) if answer.strip() else 0.0
        except TimeoutError:  # an answer that takes for ever to parse is no answer
            return 0.0


def _opened(task: Task) -> tuple[str, dict[str, Any]]:
    """The question of the task, and which item of which dataset it is."""
    check(task.data)
    dataset, config, _ = (_DEFAULTS | task.data).values()
    item = {"dataset": dataset, "config": config}

    def question(seed: int) -> str:
        item["seed"] = seed
        return str(_servant.ask("question", **item))

    return held_out(task, question), item
