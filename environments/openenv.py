"""OpenEnv: a world behind an address, whoever runs its server; its name is openenv:URL, as in openenv:http://127.0.0.1:8000.

Description
    One session of its server an attempt; nothing of the world's code comes here. `Task.data`: `reset`, what its reset is given
    beside the task's seed; `notes`, what the agent is told of the rules; `show`, the fields of an
    observation that are shown, in this order (default: all but `metadata`); `limit`, the most turns (50 by default); `scale`.
Observation
    The one field that is shown, else a line "name: value" for each. Its first 20,000 characters.
Actions
    As the server's /schema describes them. Where an action has one required field and that is text, an action is that text
    (`info["actions"]` lists its values where they are named); where it calls the world's MCP tools, a call of one of them; all
    others are calls of the tool `act` with the action's fields. What the world refuses is answered with an error: a turn is gone.
Reward
    The score is 0 until the episode ends, then the sum of the rewards, from 0.0 at `scale[0]` to 1.0 at `scale[1]` ([0, 1] by
    default); where `scale[0]` is negative (steps cost) an episode that was cut off scores 0.0. `info["raw"]` is the sum so far.
Termination
    When the world says done; truncation after `limit` turns.
Splits
    By seed: train 0–9999, val 10000–19999, test 20000–29999, given to the world's reset. Whether another seed is another world,
    and the same one the same, is up to the server: one that takes no seed has no held-out tasks.
Source
    OpenEnv (Meta and Hugging Face; BSD-3-Clause), on PyPI `openenv-core` and, since 0.4, `openenv`. Servers of openenv-core 0.3.0
    and openenv 0.10.0 are understood. A server tells no solution, so there is no oracle.
"""

from __future__ import annotations

import json
from typing import Any

from agentevolve.environments.support.openenv import Session, checked_address, form_of
from agentevolve.environments.support.settings import check_kinds, check_limit, check_scale, read_settings
from agentevolve.environments.support.splits import checked
from agentevolve.protocols import AgentevolveError, Environment, Step
from agentevolve.records import Task

NEEDS = ("websockets",)
LONGEST = 20_000  # characters of an observation that are shown
_DEFAULTS: dict[str, Any] = {"reset": {}, "notes": "", "show": [], "limit": 50, "scale": [0, 1]}


def make(url: str) -> Environment:
    """A new environment; its server is asked at the first reset."""
    return OpenEnv(checked_address(url))


def check(data: dict[str, Any], url: str) -> None:
    """Raise AgentevolveError unless `data` is what the head of this file says of Task.data and `url` an address; asks nobody."""
    checked_address(url)
    read_settings(data, _DEFAULTS)
    check_kinds(data, _DEFAULTS)
    given = _DEFAULTS | data
    check_limit(given["limit"])
    if "seed" in given["reset"] or not all(isinstance(name, str) for name in (*given["reset"], *given["show"])):
        raise AgentevolveError("settings.reset and settings.show: names of the world's own are wanted; the seed is the task's")
    check_scale(given["scale"])


def absent(data: dict[str, Any], url: str) -> str:
    """Why the world cannot be entered, if it cannot."""
    try:
        form_of(checked_address(url))
    except AgentevolveError as error:
        return str(error)
    return ""


class OpenEnv:
    """One episode at a time, each in a session of its own with the server at `url`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: Session | None = None

    def reset(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Start `task`. Raises AgentevolveError on unusable data, seed or server, RuntimeError when that fails on the way."""
        check(task.data, self._url)
        data, seed = _DEFAULTS | task.data, checked(task)
        self.close()
        self._show, self._limit, self._scale = data["show"], data["limit"], data["scale"]
        self._turns, self._raw, self._score = 0, 0.0, 0.0
        self._form, self._session = form_of(self._url), Session(self._url)
        seen = self._session.reset({**data["reset"], "seed": seed})
        if self._form.listed:
            self._form = self._form.with_tools(self._session.tools())
        if seen.done:
            raise RuntimeError(f"{self._url}: the episode is over before its first turn")
        info = self._info() | ({"notes": data["notes"]} if data["notes"] else {})
        return self._said(seen.observation), info | ({"tools": list(self._form.tools)} if self._form.tools else {})

    def step(self, action: str) -> Step:
        """Take one action. Raises RuntimeError without a running episode, or when the server fails."""
        if self._session is None:
            raise RuntimeError("no episode is running: call reset first")
        self._turns += 1
        payload, done = self._form.payload(action), False
        if isinstance(payload, str):
            observation = payload
        else:
            seen = self._session.step(payload)
            observation, done = self._said(seen.observation), seen.done
            self._raw += seen.reward
        truncated = not done and self._turns >= self._limit
        if done or truncated:
            self._score = self._final(done)
            self.close()
        return Step(observation, self._score, done, truncated, self._info())

    def oracle(self, task: Task) -> list[str]:
        """Nobody tells one: raises AgentevolveError."""
        raise AgentevolveError(f"{self._url} has no oracle: an OpenEnv server tells no solution")

    def close(self) -> None:
        """End the session with the server."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _final(self, done: bool) -> float:
        low, high = self._scale
        return min(1.0, max(0.0, (self._raw - low) / (high - low))) if done or low >= 0 else 0.0

    def _info(self) -> dict[str, Any]:
        return {"score": self._score, "raw": self._raw} | ({"actions": list(self._form.actions)} if self._form.actions else {})

    def _said(self, observation: dict[str, Any]) -> str:
        """The fields of an observation as text."""
        names = [name for name in self._show if name in observation] or [name for name in observation if name != "metadata"]
        shown = {name: observation[name] for name in names}
        texts = {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for name, value in shown.items()
        }
        said = texts[names[0]] if len(names) == 1 else "\n".join(f"{name}: {text}" for name, text in texts.items())
        return said.strip()[:LONGEST] or "(nothing is seen)"
