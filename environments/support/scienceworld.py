"""What ScienceWorld's jar holds and how it is asked: the tasks' variations by split, and a game in a JVM.

The package says which of its objects are equal, but not that equal ones have equal hash codes: Java then takes any number, the
simulator walks through its sets in another order each time, and the same actions have other effects (issue 33 of its repository).
Here its class gets the missing hash code, so that the same actions have the same effects.
"""

from __future__ import annotations

import functools
import json
import os
import zipfile
from importlib.util import find_spec
from itertools import groupby, zip_longest
from typing import Any, NamedTuple

from agentevolve.environments.support.class_file import with_hash_code
from agentevolve.environments.support.java import GameBroken, Machine, Pool

# kind of task -> how many variations the package has of it
VARIATIONS = {
    "boil": 30,
    "melt": 30,
    "freeze": 30,
    "change-the-state-of-matter-of": 30,
    "use-thermometer": 540,
    "measure-melting-point-known-substance": 436,
    "measure-melting-point-unknown-substance": 300,
    "power-component": 20,
    "power-component-renewable-vs-nonrenewable-energy": 20,
    "test-conductivity": 900,
    "test-conductivity-of-unknown-substances": 600,
    "find-living-thing": 300,
    "find-non-living-thing": 300,
    "find-plant": 300,
    "find-animal": 300,
    "grow-plant": 126,
    "grow-fruit": 126,
    "chemistry-mix": 32,
    "chemistry-mix-paint-secondary-color": 36,
    "chemistry-mix-paint-tertiary-color": 36,
    "lifespan-longest-lived": 125,
    "lifespan-shortest-lived": 125,
    "lifespan-longest-lived-then-shortest-lived": 125,
    "identify-life-stages-1": 14,
    "identify-life-stages-2": 10,
    "inclined-plane-determine-angle": 168,
    "inclined-plane-friction-named-surfaces": 1386,
    "inclined-plane-friction-unnamed-surfaces": 162,
    "mendelian-genetics-known-plant": 120,
    "mendelian-genetics-unknown-plant": 480,
}
# split -> its quarters of a kind's variations, as the package deals them; the fifth is what dividing by four leaves over
QUARTERS = {"train": (0, 2), "val": (2, 3), "test": (3, 5)}
SIMPLIFICATIONS = ("teleportAction", "openDoors", "openContainers", "selfWateringFlowerPots", "noElectricalAction")
JAVA = "-Xmx512m -XX:+UseSerialGC"  # the memory, and a collector without threads, as several JVMs run side by side


class State(NamedTuple):
    """What the game says and its score: up to 1, or -1 after a failure."""

    text: str
    score: float
    done: bool


def jar() -> str:
    """The path of the package's jar; empty when the package is not installed. Nothing of it is imported."""
    found = find_spec("scienceworld")
    return os.path.join(os.path.dirname(found.origin or ""), "scienceworld.jar") if found else ""


pool = Pool(jar(), JAVA, machines=8)


@functools.cache
def pairs(names: tuple[str, ...], split: str) -> list[tuple[str, int]]:
    """The kinds of task with their variations in a split: the first variation of each kind, the second of each …"""
    low, high = QUARTERS[split]
    columns = []
    for name in names:
        count = VARIATIONS[name]
        columns.append([(name, number) for number in range(low * (count // 4), min(high * (count // 4), count))])
    return [pair for row in zip_longest(*columns) for pair in row if pair]


def start(machine: Machine, name: str, variation: int, simplification: str) -> tuple[State, str, list[str]]:
    """The first state, what is to be done, and the templates of actions. The first look around is a move, as in the package."""
    game = _load(machine, name, variation, simplification)
    templates = json.loads(game.getPossibleActionsWithIDs())
    return step(machine, "look around"), game.getTaskDescription(), sorted(one["action_example"] for one in templates)


def step(machine: Machine, action: str) -> State:
    """The state after an action. Raises GameBroken when the simulator has failed: it answers with an exception's name then."""
    game = machine.loaded
    state = State(game.step(action), game.getScore(), game.getCompleted())
    if state.score < 0 and state.text.startswith(("java.", "scala.")):
        raise GameBroken(f"the simulator failed: {state.text[:200]}")
    return state


def look(machine: Machine) -> str:
    """What is seen and carried; takes no turn."""
    return f"{machine.loaded.freeActionLook()}\n{machine.loaded.freeActionInventory()}"


def solution(machine: Machine, name: str, variation: int, simplification: str, limit: int) -> list[str]:
    """The package's gold path, at most `limit` actions of it, played to find where it ends: it often goes on after that.

    One that is longer waits instead of looking at the same thing again and again (a block sliding down a plane, up to 300 times).
    """
    plan = [str(action) for action in _load(machine, name, variation, simplification, gold=True).getGoldActionSequence()]
    if len(plan) > limit:
        runs = ((action, len(list(run))) for action, run in groupby(plan))
        plan = [one for action, times in runs for one in ["wait"] * (times // 10) + [action] * (times % 10)]
    step(machine, "look around")
    for place, action in enumerate(plan[:limit], 1):
        state = step(machine, action)
        if state.done or state.score < 0:
            return plan[:place]
    return plan[:limit]


def _load(machine: Machine, name: str, variation: int, simplification: str, gold: bool = False) -> Any:
    machine.loaded = machine.loaded or _game(machine.jvm)
    machine.loaded.load(name, variation, simplification, gold)
    return machine.loaded


def _game(jvm: Any) -> Any:
    """The interface of a new JVM, whose class of objects is the mended one, and which prints nothing: it would a page a step."""
    jvm.java.lang.System.setOut(jvm.java.io.PrintStream(os.devnull))
    java, loader = jvm.java.lang, jvm.java.lang.ClassLoader.getSystemClassLoader()
    beside = java.Class.forName("scienceworld.struct.EnvObject$", False, loader)
    java.invoke.MethodHandles.privateLookupIn(beside, java.invoke.MethodHandles.lookup()).defineClass(_mended())
    return jvm.scienceworld.runtime.pythonapi.PythonInterface()


@functools.cache
def _mended() -> bytes:
    with zipfile.ZipFile(jar()) as archive:
        return with_hash_code(archive.read("scienceworld/struct/EnvObject.class"), "uuid")
