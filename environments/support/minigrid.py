"""Minigrid made to say nothing, its BabyAI levels, and its bot made to give up."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from agentevolve.protocols import AgentevolveError

GOALS = 1_000  # the most that the bot may set itself before one action; some ten are usual


@functools.cache
def package() -> ModuleType:
    """The package's module of the bot, with all levels known to Gymnasium and nothing said on stdout.

    pygame says hello there unless it is told not to. The levels print each draw that they throw away: in their module the name
    `print` is made one that does nothing, since redirecting stdout would do so for all threads.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    from minigrid.envs.babyai.core import roomgrid_level
    from minigrid.utils import baby_ai_bot

    vars(roomgrid_level)["print"] = lambda *said: None
    return baby_ai_bot


def level_of(name: str) -> Any:
    """The environment of the BabyAI level `name`."""
    import gymnasium

    package()
    return gymnasium.make(f"BabyAI-{name}-v{int(name == 'GoToObjS6')}", disable_env_checker=True)


def adviser(world: Any) -> Callable[[], int]:
    """What tells the next action in a world that has just been reset, if each of its actions is taken.

    It raises AgentevolveError where the bot finds no way: the bare bot then sets itself one goal after the other, without end.
    """
    bot = package().BabyAIBot(world)
    bot.stack = goals = _Goals(bot.stack)

    def ask() -> int:
        goals.pushed = 0
        try:
            action = int(bot.replan())
        except (AssertionError, OverflowError):
            action = 6
        if action == 6:  # "done": the bot has no goal left, and the instruction is not carried out
            raise AgentevolveError(f"BabyAI's bot finds no way in this world of {world.spec.id}")
        return action

    return ask


class _Goals(list[Any]):
    """The bot's stack of goals; `pushed` counts those set since it was last 0."""

    pushed = 0

    def append(self, goal: Any) -> None:
        self.pushed += 1
        if self.pushed > GOALS:
            raise OverflowError
        super().append(goal)
