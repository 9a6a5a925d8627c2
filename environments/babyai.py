"""BabyAI: a grid of rooms with keys, balls, boxes and doors, told in text, and an instruction to follow in it.

Description
    The levels of BabyAI as the package Minigrid has them: go to, pick up, open, put next to, and sequences of these, in one room
    or in many. `Task.data`: `level`, one of `LEVELS`; `limit`, the most turns.
Observation
    What lies in the 7×7 cells before the agent, nearest first, then where the walls are and what is carried, a line each, in
    BALROG's and BabyAI-Text's words: "a red key 1 step right and 1 step forward", "a wall 5 steps forward", "You carry a blue
    ball". The instruction stands in `info["notes"]`.
Actions
    turn left, turn right, go forward, pick up, drop, toggle (which opens doors and boxes). They are always all listed. Any other
    text is answered "That is not an action …": it takes a turn, and nothing moves.
Reward
    1.0 for having done what the instruction says, else 0.0. `info["raw"]` is Minigrid's own reward, which falls with time.
Termination
    When the instruction is carried out, or can no longer be; truncation after `limit` turns or after the level's own `max_steps`.
Splits
    By seed: train 0–9999, val 10000–19999, test 20000–29999. A task's world is the first of the level's seeds `seed`,
    `seed + 30000`, … whose instruction and first observation belong to its split, so no two splits have them in common.
Source
    Chevalier-Boisvert et al., BabyAI (arXiv 1810.08272); the PyPI package `minigrid` (Apache-2.0). The text follows Carta et al.,
    BabyAI-Text (arXiv 2302.02662) and Paglieri et al., BALROG (arXiv 2411.13543). The oracle is the package's BabyAIBot, which
    sees no more than the agent does; in a few worlds of the levels with locked doors it finds no way.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from agentevolve.environments.support.minigrid import adviser, level_of
from agentevolve.environments.support.settings import check_limit, read_settings
from agentevolve.environments.support.splits import held_out
from agentevolve.protocols import AgentevolveError, Environment, Step
from agentevolve.records import Task

NEEDS = ("minigrid",)
ACTIONS = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle")  # Minigrid's 0 to 5
# without the package's levels for debugging, and without the four that its bot cannot solve
LEVELS = tuple(
    """
    GoToRedBallGrey GoToRedBall GoToRedBallNoDists GoToObj GoToObjS4 GoToObjS6 GoToLocal GoToLocalS5N2 GoToLocalS6N2
    GoToLocalS6N3 GoToLocalS6N4 GoToLocalS7N4 GoToLocalS7N5 GoToLocalS8N2 GoToLocalS8N3 GoToLocalS8N4 GoToLocalS8N5
    GoToLocalS8N6 GoToLocalS8N7 GoTo GoToOpen GoToObjMaze GoToObjMazeOpen GoToObjMazeS4R2 GoToObjMazeS4 GoToObjMazeS5
    GoToObjMazeS6 GoToObjMazeS7 GoToImpUnlock GoToSeq GoToSeqS5R2 GoToRedBlueBall GoToDoor GoToObjDoor Open OpenRedDoor OpenDoor
    OpenDoorColor OpenDoorLoc OpenTwoDoors OpenRedBlueDoors OpenDoorsOrderN2 OpenDoorsOrderN4 Pickup UnblockPickup PickupLoc
    PickupDist PickupAbove PutNextLocal PutNextLocalS5N3 PutNextLocalS6N4 PutNextS4N1 PutNextS5N2 PutNextS5N1 PutNextS6N3
    PutNextS7N4 Unlock UnlockLocal UnlockLocalDist UnlockPickup UnlockPickupDist BlockedUnlockPickup UnlockToUnlock
    ActionObjDoor FindObjS5 FindObjS6 FindObjS7 KeyCorridor KeyCorridorS3R1 KeyCorridorS3R2 KeyCorridorS3R3 KeyCorridorS4R3
    KeyCorridorS5R3 KeyCorridorS6R3 OneRoomS8 OneRoomS12 OneRoomS16 OneRoomS20 MoveTwoAcrossS5N2 MoveTwoAcrossS8N9 Synth
    SynthS5R2 SynthLoc SynthSeq MiniBossLevel BossLevel BossLevelNoUnlock
    """.split()  # noqa: SIM905
)
NOTES = """\
Your goal is to {mission}.
turn left, turn right: turn where you stand
go forward: take one step forward
pick up: pick up the object in front of you
drop: put down what you carry in front of you
toggle: open or close the door in front of you, or open the box"""
_DEFAULTS: dict[str, Any] = {"level": "", "limit": 64}
_THINGS = {4: "door", 5: "key", 6: "ball", 7: "box"}  # Minigrid's numbers for what a cell holds, its colour, a door's state
_COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
_DOORS = ("an open", "a closed", "a locked")
_UNSEEN, _WALL = 0, 2


def make() -> Environment:
    """A new environment."""
    return BabyAI()


def check(data: dict[str, Any]) -> None:
    """Raise AgentevolveError unless `data` is what the head of this file says of Task.data."""
    level, limit = read_settings(data, _DEFAULTS)
    if level not in LEVELS:
        raise AgentevolveError(f"settings.level: unknown level {level!r}; known: {', '.join(LEVELS)}")
    check_limit(limit)


class BabyAI:
    """One level at a time, kept for the next episode of the same level."""

    def __init__(self) -> None:
        self._env: Any = None
        self._level = ""

    def reset(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Start `task`. Raises AgentevolveError on unusable data or seed."""
        check(task.data)
        level, self._limit = (_DEFAULTS | task.data).values()
        if self._env is None or self._level != level:
            self._env, self._level = level_of(level), level
        self._turns, self._raw = 0, 0.0
        held_out(task, self._start)
        return self._seen, {**self._info(), "notes": self._notes}

    def step(self, action: str) -> Step:
        """Take one action. Raises RuntimeError without a running episode."""
        if self._env is None:
            raise RuntimeError("no episode is running: call reset first")
        self._turns, before = self._turns + 1, float(self._raw > 0)
        terminated = truncated = False
        seen, action = f"That is not an action. The actions are: {', '.join(ACTIONS)}.", action.strip()
        if action in ACTIONS:
            observation, reward, terminated, truncated, _ = self._env.step(ACTIONS.index(action))
            seen, self._raw = describe(observation["image"]), self._raw + float(reward)
        truncated = not terminated and (truncated or self._turns >= self._limit)
        return Step(seen, float(self._raw > 0) - before, terminated, truncated, self._info())

    def oracle(self, task: Task) -> list[str]:
        """The bot's way, found by walking it in a world of its own. Raises AgentevolveError where the bot finds none."""
        actions, over = [], False
        with closing(BabyAI()) as world:
            world.reset(task)
            ask = adviser(world._env)
            while not over:
                actions.append(ACTIONS[ask()])
                _, _, terminated, truncated, _ = world.step(actions[-1])
                over = terminated or truncated
        return actions

    def close(self) -> None:
        """Let the level go."""
        self._env = None

    def _start(self, seed: int) -> str:
        observation, _ = self._env.reset(seed=seed)
        self._seen, self._notes = describe(observation["image"]), NOTES.format(mission=observation["mission"])
        return f"{self._notes}\n{self._seen}"

    def _info(self) -> dict[str, Any]:
        return {"actions": sorted(ACTIONS), "score": float(self._raw > 0), "raw": self._raw}


def describe(image: Any) -> str:
    """What the agent sees in words: Minigrid's picture, 7×7 cells of thing, colour and state, the agent below in the middle."""
    cells: list[list[list[int]]] = image.tolist()
    middle, below = len(cells) // 2, len(cells[0]) - 1
    carried, things = cells[middle][below], []
    for across, line in enumerate(cells):
        for down, cell in enumerate(line):
            if cell[0] in _THINGS and (across, down) != (middle, below):
                ahead, aside = below - down, across - middle
                things.append((ahead + abs(aside), ahead, aside, _named(*cell)))
    lines = [f"{name} {_where(ahead, aside)}" for _, ahead, aside, name in sorted(things)]
    for sight in (
        [(ahead, 0, cell) for ahead, cell in enumerate(reversed(cells[middle]))],
        [(0, -steps, line[below]) for steps, line in enumerate(cells[middle::-1])],
        [(0, steps, line[below]) for steps, line in enumerate(cells[middle:])],
    ):
        found = next((place for place in sight if place[2][0] in (_UNSEEN, _WALL)), None)
        if found and found[2][0] == _WALL:
            lines.append(f"a wall {_where(*found[:2])}")
    if carried[0] in _THINGS:
        lines.append(f"You carry {_named(*carried)}")
    return "\n".join(lines) or "nothing in sight"


def _named(thing: int, colour: int, state: int) -> str:
    article = _DOORS[state] if _THINGS[thing] == "door" else "a"
    return f"{article} {_COLOURS[colour]} {_THINGS[thing]}"


def _where(ahead: int, aside: int) -> str:
    parts = ((abs(aside), "left" if aside < 0 else "right"), (ahead, "forward"))
    return " and ".join(f"{steps} step{'s' * (steps > 1)} {way}" for steps, way in parts if steps)
