"""ALFWorld: find, take, wash, heat, cool and put away things in the rooms of a house that is described in words.

Description
    Six kinds of tasks: put a thing somewhere, two of them, one that is first to be cleaned, heated or cooled, or look at it under
    a lamp. `Task.data`: `source`, "generated" (games made by seed, see below) or "original" (ALFWorld's own games, which
    `alfworld-download` fetches); `limit`, the most turns; `hide`, actions not listed (they are still understood).
Observation
    The game's text: at first what stands in the room. What is asked stands in `info["notes"]`. ALFWorld's greeting is left out.
Actions
    A line of text. `info["actions"]` lists the admissible ones, sorted. ALFWorld now says `move X to Y` where papers quote
    `put X in/on Y`. Any other text is answered "Nothing happens." and takes a turn; control characters are read as blanks and
    only the first 200 characters are read.
Reward
    1 when what was asked is done, else 0.
Termination
    When it is done; truncation after `limit` turns.
Splits
    Seeds: train from 0, val from 10000, test from 20000, below 10000 of each. Generated games are split by room, and rooms of two
    splits never look alike: of each kind of room (kitchen, living room, bedroom, bathroom) test plays the six floor plans
    that ALFWorld's code names as test rooms, val four and train twenty of the others. So val and test are both like
    ALFWorld's valid_unseen. Original games are counted through ALFWorld's folders in the order of their names: train, val (its
    valid_seen: rooms of train, other tasks) and test (its valid_unseen). Other seeds are refused.
Source
    Shridhar et al., ALFWorld (arXiv 2010.03768), the PyPI package `alfworld` (MIT) on `textworld` (MIT) and
    `fast-downward-textworld` (GPL-3.0). Generated games use the package's domain, grammar, goals, floor plans and its tables of
    what may lie where; they are not ALFWorld's published games, and figures on them do not compare.
"""

from __future__ import annotations

import functools
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentevolve.environments.support.alfworld import games as _alfworld_games
from agentevolve.environments.support.alfworld.plans import plan
from agentevolve.environments.support.settings import check_limit, read_settings
from agentevolve.environments.support.text import one_line
from agentevolve.protocols import AgentevolveError, Environment, Step
from agentevolve.records import Task

if TYPE_CHECKING:
    from agentevolve.environments.support.alfworld.engine import Engine

NEEDS = ("alfworld", "textworld", "fast_downward")
SOURCES = ("generated", "original")
# split -> its folder in ALFWorld's data and its first seed; it has at most SEEDS of them
SPLITS = {"train": ("train", 0), "val": ("valid_seen", 10_000), "test": ("valid_unseen", 20_000)}
SEEDS = 10_000
_DEFAULTS: dict[str, Any] = {"source": "generated", "limit": 50, "hide": []}


def make() -> Environment:
    """A new environment."""
    return AlfWorld()


def check(data: dict[str, Any]) -> None:
    """Raise AgentevolveError unless `data` is what the head of this file says of Task.data."""
    source, limit, hide = read_settings(data, _DEFAULTS)
    if source not in SOURCES:
        raise AgentevolveError(f"settings.source: unknown source {source!r}; known: {', '.join(SOURCES)}")
    check_limit(limit)
    if not isinstance(hide, list) or not all(isinstance(action, str) for action in hide):
        raise AgentevolveError(f"settings.hide: {hide!r} is not a list of actions")


def absent(data: dict[str, Any]) -> str:
    """What the tasks of these settings need that is not on this computer, in one line; empty when they can be played."""
    roots = [_data() / folder for folder, _ in SPLITS.values()] if data.get("source") == "original" else []
    return next((_absent(root) for root in roots if not any(root.glob("*/*/game.tw-pddl"))), "")


class AlfWorld:
    """One game at a time. The engine is borrowed from the first look to the end of the episode, and is this process's own."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def reset(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Start `task`. Raises AgentevolveError on unusable data or seed, or when ALFWorld's own games are not there."""
        game = _game(task)
        from agentevolve.environments.support.alfworld import engine as engines

        self._engine = self._engine or engines.borrow()
        _, self._limit, self._hide = (_DEFAULTS | task.data).values()
        self._turns = 0
        try:
            self._scene = self._engine.start(game)
        except Exception:
            self.close()
            raise
        greeting, _, asked = self._scene.text.strip().rpartition("\n\n")
        return greeting.rpartition("\n\n")[2], {**self._info(), "notes": asked}

    def step(self, action: str) -> Step:
        """Take one action. Raises RuntimeError without a running episode."""
        if self._engine is None:
            raise RuntimeError("no episode is running: call reset first")
        self._turns += 1
        command = one_line(action)
        if command in self._scene.actions:
            self._scene = self._engine.play(command)
        else:  # what the engine would say, after looking at everything anew
            self._scene = self._scene._replace(text="Nothing happens.")
        won = self._scene.won
        truncated = not won and self._turns >= self._limit
        if won or truncated:
            self.close()
        return Step(self._scene.text.strip(), float(won), won, truncated, self._info())

    def oracle(self, task: Task) -> list[str]:
        """A plan from what lies where; for an original game of which that cannot be told, ALFWorld's own, often a long search."""
        game = _game(task)
        return plan(game["pddl_problem"]) or list(game.get("walkthrough") or [])

    def close(self) -> None:
        """Let another game have the engine."""
        engine, self._engine = self._engine, None
        if engine:
            from agentevolve.environments.support.alfworld import engine as engines

            engines.give_back(engine)

    def _info(self) -> dict[str, Any]:
        shown = [action for action in self._scene.actions if action not in self._hide]
        return {"actions": shown or self._scene.actions, "score": float(self._scene.won)}


def _game(task: Task) -> dict[str, Any]:
    check(task.data)
    folder, first = SPLITS[task.split]
    if not first <= task.seed < first + SEEDS:
        raise AgentevolveError(
            f"task {task.id}: seed {task.seed} is not of {task.split}; its seeds are {first}–{first + SEEDS - 1}"
        )
    if task.data.get("source", _DEFAULTS["source"]) == "generated":
        return dict(_alfworld_games.game(task.split, task.seed))
    root = _data() / folder
    games = _games(root)
    if task.seed - first >= len(games):
        raise AgentevolveError(f"task {task.id}: {task.split} has seeds {first}–{first + len(games) - 1}, the games in {root}")
    return dict(json.loads(games[task.seed - first].read_text("utf-8")))


def _data() -> Path:
    return Path(os.environ.get("ALFWORLD_DATA") or "~/.cache/alfworld").expanduser() / "json_2.1.1"


@functools.cache
def _games(root: Path) -> tuple[Path, ...]:
    """ALFWorld's game files in `root`, in order and as ALFWorld chooses: solvable, nothing sliced or carried in another."""
    found = [path for path in sorted(root.glob("*/*/game.tw-pddl")) if not re.search("movable|Sliced", path.parts[-3])]
    games = tuple(path for path in found if re.search(r'"solvable": *true', path.read_text("utf-8")))
    if not games:
        raise AgentevolveError(_absent(root))
    return games


def _absent(root: Path) -> str:
    where = "run alfworld-download and set ALFWORLD_DATA to where it puts them"
    return f"ALFWorld's own games are not in {root}: {where}, or use the task set alfworld-generated"
