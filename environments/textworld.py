"""TextWorld: text games that are generated and compiled on demand; find a coin, find a treasure, cook by a recipe.

Description
    coin (a chain of rooms, with dead ends from level 101, and a coin at its end), treasure (take the thing that the objective
    names and not the other one; closed doors and boxes from level 11, locked ones from 21) and cooking (read the cookbook, fetch,
    cook and cut what it says, prepare the meal, eat it). `Task.data`: `game`; `params`, the generator's own (see `PARAMS`; what
    is not named has its lowest value); `limit`, the most turns. Making a game takes seconds, once: it is kept in the user's
    cache.
Observation
    The game's text; its objective stands in `info["notes"]`.
Actions
    `info["actions"]` lists the admissible commands, sorted. Any other text is answered "You cannot do that here.": it takes a
    turn, and the game does not hear of it, so that nothing is saved, restored or asked of its debugger.
Reward
    The change of the game's score as a share of its highest: the rewards add up to `info["score"]`. `info["raw"]` is the score
    in points.
Termination
    When the game is won or lost; truncation after `limit` turns.
Splits
    By seed: train 0–9999, val 10000–19999, test 20000–29999. In cooking they are the package's train, valid and test as well:
    val and test have foods, and ways to prepare the known ones, that train has not.
Source
    Côté et al., TextWorld (arXiv 1806.11532), the PyPI package `textworld` (MIT), played by `jericho` (GPL-2.0). The oracle is
    the package's walkthrough.
"""

from __future__ import annotations

import json
import re
import warnings
from typing import Any

from agentevolve.environments.support.settings import check_limit, read_settings
from agentevolve.environments.support.splits import checked
from agentevolve.environments.support.textworld.inform import made
from agentevolve.environments.support.textworld.lock import LOCK
from agentevolve.protocols import AgentevolveError, Environment, Step
from agentevolve.records import Task

NEEDS = ("textworld",)
_FLAG = (0, 1)
# game -> parameter -> the values that the generator takes
PARAMS: dict[str, dict[str, range | tuple[int, ...]]] = {
    "coin": {"level": range(1, 301)},
    "treasure": {"level": range(1, 31)},
    "cooking": {
        "recipe": range(1, 6), "take": range(6), "go": (1, 6, 9, 12), "open": _FLAG, "cook": _FLAG, "cut": _FLAG, "drop": _FLAG,
    },
}  # fmt: skip
ROOMS = 100  # the most of a coin game: level 101 is of 2 rooms, 150 of 100, 151 of 102
_DEFAULTS: dict[str, Any] = {"game": "", "params": {}, "limit": 50}


def make() -> Environment:
    """A new environment."""
    return TextWorld()


def check(data: dict[str, Any]) -> None:
    """Raise AgentevolveError unless `data` is what the head of this file says of Task.data."""
    game, params, limit = read_settings(data, _DEFAULTS)
    if not isinstance(game, str) or game not in PARAMS:
        raise AgentevolveError(f"settings.game: unknown game {game!r}; known: {', '.join(PARAMS)}")
    check_limit(limit)
    if not isinstance(params, dict):
        raise AgentevolveError(f"settings.params: {params!r} is not a mapping of parameters to numbers")
    for name, value in params.items():
        if name not in PARAMS[game]:
            raise AgentevolveError(f"settings.params: {game} has no parameter {name!r}; known: {', '.join(PARAMS[game])}")
        known = PARAMS[game][name]
        if type(value) is not int or value not in known:
            raise AgentevolveError(f"settings.params.{name}: {value!r} is not one of {', '.join(map(str, _ends(known)))}")
    full = _full(game, params)
    if game == "coin" and _rooms(full["level"]) > ROOMS:
        raise AgentevolveError(f"settings.params.level: {full['level']} has {_rooms(full['level'])} rooms; the most is {ROOMS}")
    if game == "cooking" and full["take"] > full["recipe"]:
        raise AgentevolveError(f"settings.params.take: {full['take']} is more than the recipe's {full['recipe']} ingredients")


def _ends(known: range | tuple[int, ...]) -> list[Any]:
    return [known[0], "…", known[-1]] if isinstance(known, range) else list(known)


def _full(game: str, params: dict[str, int]) -> dict[str, int]:
    """All parameters; the lowest value is the default."""
    return {name: params.get(name, known[0]) for name, known in PARAMS[game].items()}


def _rooms(level: int) -> int:
    return ((level - 1) // 100 + 1) * ((level - 1) % 100 + 1)


class TextWorld:
    """One game at a time, kept until another one is asked for."""

    def __init__(self) -> None:
        self._env: Any = None
        self._path = ""

    def reset(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Start `task`. Raises AgentevolveError on unusable data or seed, or when the game cannot be made."""
        path = str(_folder(task) / "game.z8")
        if self._env is None or self._path != path:
            self.close()
            self._env, self._path = _opened(path), path
        self._limit, self._turns, self._score = (_DEFAULTS | task.data)["limit"], 0, 0.0
        state = self._env.reset()
        # the first text is a banner, the objective and the room
        return _tidy(state.feedback[state.feedback.find("-= ") :]), {**self._info(state), "notes": _tidy(state.objective)}

    def step(self, action: str) -> Step:
        """Take one action. Raises RuntimeError without a running episode."""
        if self._env is None:
            raise RuntimeError("no episode is running: call reset first")
        self._turns, before = self._turns + 1, self._score
        command = self._commands.get(_plain(action[:200]))
        if command is None:
            info = {"actions": list(self._commands.values()), "score": self._score, "raw": self._points}
            return Step("You cannot do that here.", 0.0, False, self._turns >= self._limit, info)
        state, _, _ = self._env.step(command)
        info, terminated = self._info(state), bool(state.won or state.lost)
        truncated = not terminated and self._turns >= self._limit
        return Step(_tidy(state.feedback), self._score - before, terminated, truncated, info)

    def oracle(self, task: Task) -> list[str]:
        """The package's walkthrough of the game."""
        return [str(command) for command in json.loads((_folder(task) / "game.json").read_text())["metadata"]["walkthrough"]]

    def close(self) -> None:
        """End the game's interpreter."""
        env, self._env = self._env, None
        if env is not None:
            env.close()

    def _info(self, state: Any) -> dict[str, Any]:
        self._points = int(state.score or 0)
        self._score = min(1.0, self._points / state.max_score)
        self._commands = {_plain(command): command for command in state.admissible_commands}
        return {"actions": list(self._commands.values()), "score": self._score, "raw": self._points}


def _folder(task: Task) -> Any:
    check(task.data)
    game, params, _ = (_DEFAULTS | task.data).values()
    return made(game, _full(game, params), checked(task), task.split)


def _opened(path: str) -> Any:
    import jericho
    import textworld

    wanted = textworld.EnvInfos(admissible_commands=True, won=True, lost=True, score=True, max_score=True, objective=True)
    with LOCK:
        warnings.simplefilter("ignore", jericho.UnsupportedGameWarning)  # that a game is not one of Infocom's
        env = textworld.start(path, wanted)
    env.seed(1)  # else the interpreter takes the time
    return env


def _plain(command: str) -> str:
    return " ".join(command.lower().split())


def _tidy(text: str) -> str:
    """The game's text without the interpreter's prompt, status line and last question; no empty lines."""
    text = re.split(r"\n>|Would you like to RESTART", text)[0]
    return "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())
