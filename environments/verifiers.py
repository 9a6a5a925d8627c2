"""verifiers: the tasks of an environment of Prime Intellect's package, by its name: verifiers:NAME, as in verifiers:gsm8k-v1.

Description
    NAME is a taskset as the package itself loads it: an installed module of that name, or one that it ships. The package plays
    the episode (setup, tools, users, scoring); what it would ask a model for, the agent answers. `Task.data`: `taskset`, options
    of the taskset; `env`, options of its environment, with `id` for one to pair it with; `limit`, the most turns (20 by default);
    `scale`.
Observation
    What was said since the agent's last answer: the task, a tool's result, a user's words. A system message is told in the notes.
Actions
    Text, or where the task has tools (`info["tools"]`) a call of them. The agent stands in the place of the package's harness:
    a harness that the taskset ships is not run, so what only its program could do (a shell, an editor) is not there.
Reward
    The score is 0 until the episode ends, then the package's reward, from 0.0 at `scale[0]` to 1.0 at `scale[1]` ([0, 1] by
    default), the mean over the agent's parts where the environment has it play several.
Termination
    When the package says so: mostly after an answer that calls no tool. Truncation after `limit` turns, scored as it stands.
Splits
    A task's seed is its place in the taskset, from 0; the task set's file says which places are held out. That no two places hold
    the same task is the taskset's affair.
Source
    The PyPI package `verifiers` (MIT), version 0.4 with its v1 environments. A taskset's code runs in this process as any module
    that is imported; tools that it starts run on this machine. It tells no solution, so there is no oracle.
"""

from __future__ import annotations

import re
from typing import Any

from agentevolve.environments.support.settings import check_kinds, check_limit, check_scale, read_settings
from agentevolve.environments.support.verifiers import Ended, Episode, opened
from agentevolve.protocols import AgentevolveError, Environment, Step
from agentevolve.records import Task

NEEDS = ("verifiers",)
LONGEST = 20_000  # characters of an observation that are shown
_DEFAULTS: dict[str, Any] = {"taskset": {}, "env": {}, "limit": 20, "scale": [0, 1]}


def make(name: str) -> Environment:
    """A new environment of the taskset `name`."""
    _check_name(name)
    return Verifiers(name)


def check(data: dict[str, Any], name: str) -> None:
    """Raise AgentevolveError unless `data` is what the head of this file says of Task.data; loads nothing."""
    _check_name(name)
    read_settings(data, _DEFAULTS)
    check_kinds(data, _DEFAULTS)
    given = _DEFAULTS | data
    check_limit(given["limit"])
    if "id" in given["taskset"] or "taskset" in given["env"]:
        raise AgentevolveError("settings.taskset and settings.env: the taskset is named by verifiers:NAME alone")
    check_scale(given["scale"])


def absent(data: dict[str, Any], name: str) -> str:
    """Why the taskset cannot be played, if it cannot."""
    given = _DEFAULTS | data
    try:
        opened(name, given["taskset"], given["env"], given["limit"])
    except AgentevolveError as error:
        return str(error)
    return ""


def _check_name(name: str) -> None:
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?(@[\w.-]+)?", name):
        raise AgentevolveError(f"verifiers:{name[:100]!r}: the name of a taskset is wanted, such as gsm8k-v1")


class Verifiers:
    """One episode at a time, played by the package until it asks for an answer."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._episode: Episode | None = None

    def reset(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Start `task`. Raises AgentevolveError on unusable data, taskset or seed, RuntimeError when the package fails."""
        check(task.data, self._name)
        data = _DEFAULTS | task.data
        self.close()
        self._scale, self._raw, self._score = data["scale"], 0.0, 0.0
        self._episode = opened(self._name, data["taskset"], data["env"], data["limit"]).begin(task.seed)
        asked = self._episode.asked()
        if isinstance(asked, Ended):
            self.close()
            raise RuntimeError(f"verifiers:{self._name}: the episode was over before anything was asked")
        info = self._info() | ({"notes": asked.system} if asked.system else {})
        return _shown(asked.said), info | ({"tools": list(asked.tools)} if asked.tools else {})

    def step(self, action: str) -> Step:
        """Give one answer. Raises RuntimeError without a running episode or when the package fails."""
        if self._episode is None:
            raise RuntimeError("no episode is running: call reset first")
        self._episode.answer(action)
        asked = self._episode.asked()
        if not isinstance(asked, Ended):
            said = "\n".join(filter(None, (asked.system, asked.said)))
            return Step(_shown(said), 0.0, False, False, self._info())
        low, high = self._scale
        self._raw, self._score = asked.reward, min(1.0, max(0.0, (asked.reward - low) / (high - low)))
        self.close()
        return Step("The episode is over.", self._score, not asked.cut, asked.cut, self._info())

    def oracle(self, task: Task) -> list[str]:
        """Nobody tells one: raises AgentevolveError."""
        raise AgentevolveError(f"verifiers:{self._name} has no oracle: a taskset tells no solution")

    def close(self) -> None:
        """End the episode, however far it is."""
        episode, self._episode = self._episode, None
        if episode is not None:
            episode.close()

    def _info(self) -> dict[str, Any]:
        return {"score": self._score, "raw": self._raw}


def _shown(text: str) -> str:
    return text.strip()[:LONGEST] or "(nothing is said)"
