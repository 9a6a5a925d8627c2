"""Gymnasium: any registered environment whose observations and actions are text or numbers, or can be said as such.

Description
    The door for an environment of one's own, and for Gymnasium's toy texts. `Task.data`: `id`, as `gymnasium.make` takes it
    ("Taxi-v4", or "my_package.mazes:Maze-v0", whose module is imported first); `kwargs` for it; `by_seed`, more of them, each
    drawn from the seed by the function that "package.module:function" names; `notes`, what the agent is told of the rules;
    `render`, "package.module:function", called with an observation and the unwrapped environment; `actions`, names for the
    numbers of a discrete action space, in their order; `limit`, the most turns (default: the environment's max_episode_steps);
    `scale`; `same_start`.
Observation
    What `render` says; without it the observation itself, which must be text or one number.
Actions
    `info["actions"]` lists a discrete space's names (default: its numbers). With a text space an action is any of its texts.
    Any other text is answered "That is not an action.": it takes a turn, and the environment does not hear of it.
Reward
    The score is 0 until the episode ends. It is then 1.0 if the environment terminated it with a positive reward, else 0.0.
    `scale: [low, high]` makes it the return instead, from 0.0 at `low` to 1.0 at `high`; where `low` is negative (steps cost)
    an episode that was cut off scores 0.0. `info["raw"]` is the return so far.
Termination
    When the environment says so; truncation when the environment says so or after `limit` turns.
Splits
    By seed: train 0–9999, val 10000–19999, test 20000–29999. A task's world is the first of `reset(seed)`, `reset(seed + 30000)`,
    … whose first observation belongs to its split, so no start is in two splits. An environment with few starts cannot be held
    out so, and is refused; `same_start: true` takes `reset(seed)` as it comes: then the splits differ in luck alone.
Source
    Towers et al., Gymnasium (arXiv 2407.17032), the PyPI package `gymnasium` (MIT). The oracle plays by the transition table
    (`unwrapped.P`) or asks `unwrapped.oracle(seed)` for the actions; an environment that has neither has no oracle.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import closing
from numbers import Integral
from pkgutil import resolve_name
from typing import Any

from agentevolve.environments.support.settings import check_kinds, check_scale, read_settings
from agentevolve.environments.support.splits import checked, held_out
from agentevolve.environments.support.tables import best_policy
from agentevolve.protocols import AgentevolveError, Environment, Step
from agentevolve.records import Task

NEEDS = ("gymnasium",)
_DEFAULTS: dict[str, Any] = {
    "id": "", "kwargs": {}, "by_seed": {}, "notes": "", "render": "", "actions": [], "limit": 0, "scale": [], "same_start": False,
}  # fmt: skip


def make() -> Environment:
    """A new environment."""
    return Gymnasium()


def check(data: dict[str, Any]) -> None:
    """Raise AgentevolveError unless `data` is what the head of this file says of Task.data. Imports nothing that it names."""
    read_settings(data, _DEFAULTS)
    check_kinds(data, _DEFAULTS)
    id, _, by_seed, _, render, actions, limit, scale, _ = (_DEFAULTS | data).values()
    if not id.strip():
        raise AgentevolveError("settings.id: missing; it is what gymnasium.make takes, such as FrozenLake-v1")
    for field, name in [("render", render), *((f"by_seed.{key}", name) for key, name in by_seed.items())]:
        module, _, function = str(name).partition(":")
        if name and not all(part.isidentifier() for part in (*module.split("."), *function.split("."))):
            raise AgentevolveError(f"settings.{field}: {name!r} is not of the form package.module:function")
    if len(set(map(str, actions))) < len(actions) or not all(isinstance(name, str) and name.strip() for name in actions):
        raise AgentevolveError(f"settings.actions: {actions!r} is not a list of different names")
    if limit < int("limit" in data):
        raise AgentevolveError(f"settings.limit: {limit!r} is not a whole number of turns from 1")
    if scale:
        check_scale(scale)


class Gymnasium:
    """One episode at a time in an environment that is kept for the next one."""

    def __init__(self) -> None:
        self._env: Any = None
        self._made: Any = None  # the id and keyword arguments that `_env` was made of
        self._data = _DEFAULTS

    def reset(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Start `task`. Raises AgentevolveError on unusable data or seed, and whatever the environment raises."""
        check(task.data)
        self._data = _DEFAULTS | task.data
        self._turns, self._raw, self._score = 0, 0.0, 0.0
        observation = self._start(checked(task)) if self._data["same_start"] else held_out(task, self._start)
        return observation, self._info() | ({"notes": self._data["notes"]} if self._data["notes"] else {})

    def step(self, action: str) -> Step:
        """Take one action. Raises RuntimeError without a running episode, and whatever the environment raises."""
        if self._env is None:
            raise RuntimeError("no episode is running: call reset first")
        self._turns += 1
        reward, terminated, truncated = 0.0, False, False
        observation = "That is not an action." + (f" The actions are: {', '.join(self._moves)}." if self._moves else "")
        if (action.strip() in self._moves) if self._moves else (action in self._env.action_space):
            seen, reward, terminated, truncated, _ = self._env.step(self._moves.get(action.strip(), action))
            observation, self._raw = self._said(seen), self._raw + float(reward)
        truncated = not terminated and bool(truncated or self._turns >= self._limit)
        self._score = self._final(bool(terminated), float(reward)) if terminated or truncated else 0.0
        return Step(observation, self._score, bool(terminated), truncated, self._info())

    def sample(self, rng: random.Random) -> str:
        """A random text of the action space."""
        space = self._env.action_space
        return "".join(rng.choice(sorted(space.character_set)) for _ in range(rng.randint(space.min_length, space.max_length)))

    def oracle(self, task: Task) -> list[str]:
        """What the environment's `oracle(seed)` says, else the best play by its table, which luck may spoil."""
        with closing(Gymnasium()) as world:
            world.reset(task)
            return world._solution()

    def close(self) -> None:
        """Close the environment."""
        env, self._env, self._made = self._env, None, None
        if env is not None:
            env.close()

    def _start(self, seed: int) -> str:
        self._seed, data = seed, self._data
        drawn = {key: _named(f"by_seed.{key}", name)(seed) for key, name in data["by_seed"].items()}
        made = data["id"], data["kwargs"] | drawn, data["limit"]
        if self._made != made:
            self.close()
            self._env, self._made = _make(*made), made
            self._limit = self._env.spec.max_episode_steps
        if not self._limit:
            raise AgentevolveError(f"settings.limit: {data['id']} has no max_episode_steps of its own: give the most turns")
        self._moves = _moves(self._env.action_space, data["actions"])
        self._render = _named("render", data["render"]) if data["render"] else None
        self._state, _ = self._env.reset(seed=seed)
        return self._said(self._state)

    def _said(self, observation: Any) -> str:
        if self._render:
            return str(self._render(observation, self._env.unwrapped)).strip()
        if not isinstance(observation, str | Integral):
            raise AgentevolveError(f"settings.render: {self._data['id']} shows {self._env.observation_space}: name what says it")
        return str(observation).strip()

    def _final(self, terminated: bool, reward: float) -> float:
        if not self._data["scale"]:
            return float(terminated and reward > 0)
        low, high = self._data["scale"]
        return min(1.0, max(0.0, (self._raw - low) / (high - low))) if terminated or low >= 0 else 0.0

    def _info(self) -> dict[str, Any]:
        return {"score": self._score, "raw": self._raw} | ({"actions": sorted(self._moves)} if self._moves else {})

    def _solution(self) -> list[str]:
        names = {number: name for name, number in self._moves.items()}
        world = self._env.unwrapped
        if hasattr(world, "oracle"):
            return [names.get(action, action) for action in world.oracle(self._seed)]
        if not hasattr(world, "P"):
            raise AgentevolveError(f"{self._data['id']} has no oracle: neither a method oracle(seed) nor a transition table P")
        policy, state, actions, ended = best_policy(world.P), self._state, [], False
        while not ended and len(actions) < self._limit:
            actions.append(names[policy[state]])
            state, _, terminated, truncated, _ = self._env.step(policy[state])
            ended = terminated or truncated
        return actions


def _named(field: str, name: str) -> Any:
    try:
        return resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise AgentevolveError(f"settings.{field}: {name!r}: {error}") from None


def _make(id: str, kwargs: dict[str, Any], limit: int) -> Any:
    import gymnasium  # the package: this module is agentevolve.environments.gymnasium

    try:
        return gymnasium.make(id, max_episode_steps=limit or None, disable_env_checker=True, **kwargs)
    except (gymnasium.error.Error, ImportError) as error:
        raise AgentevolveError(f"settings.id: {id!r}: {' '.join(str(error).split())}") from None
    except TypeError as error:
        raise AgentevolveError(f"settings.kwargs: {' '.join(str(error).split())}") from None


def _moves(space: Any, names: Iterable[str]) -> dict[str, int]:
    """The number of each name of a discrete space; empty for a text space."""
    from gymnasium import spaces

    if isinstance(space, spaces.Text) and not names:
        return {}
    if not isinstance(space, spaces.Discrete):
        raise AgentevolveError(f"settings.id: its actions are {space}, neither text nor discrete")
    numbers = range(int(space.start), int(space.start + space.n))
    names = list(names) or [str(number) for number in numbers]
    if len(names) != len(numbers):
        raise AgentevolveError(f"settings.actions: {len(names)} names for {len(numbers)} actions")
    return dict(zip(names, numbers, strict=True))
