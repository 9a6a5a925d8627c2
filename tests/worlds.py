"""Small deterministic worlds, and what tests need around them: tasks, a task set's file, a model or memory in a run's hands."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentevolve.memory import HashEmbedder, open_memory
from agentevolve.policy import Policy
from agentevolve.protocols import Model, Reply, Step
from agentevolve.records import Split, Task, Trajectory
from agentevolve.run.folder import Run

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
TASKS = """\
name: corridor
about: Walk to the lamp.
env: worlds:Corridor
settings: {settings}
splits:
  train: {{seeds: [0, 40]}}
  val: {{seeds: [100, 140]}}
  test: {{seeds: [200, 240]}}
licence: MIT
"""


class Corridor:
    """A row of cells with a lamp at one end, by the seed; "left" and "right" walk, reaching the lamp is the goal.

    `Task.data`: `length` of the walk to the lamp, `limit` of turns, `pause` in seconds a step, `log`, a file that gets a line
    for each finished episode, `name` of the place.
    """

    def reset(self, task: Task) -> tuple[str, dict[str, Any]]:
        self.task = task
        self.at, self.turns = 0, 0
        return self._seen(), self._info()

    def step(self, action: str) -> Step:
        time.sleep(self.task.data.get("pause", 0.0))
        self.turns += 1
        self.at += {"left": -1, "right": 1}.get(action, 0)
        there = self.at == self._goal()
        late = self.turns >= self.task.data.get("limit", 12)
        if there or late:
            self._log()
        return Step(self._seen(), float(there), there, late and not there, self._info())

    def oracle(self, task: Task) -> list[str]:
        return [lamp(task)] * task.data.get("length", 3)

    def close(self) -> None:
        pass

    def _goal(self) -> int:
        return self.task.data.get("length", 3) * (1 if lamp(self.task) == "right" else -1)

    def _seen(self) -> str:
        place = f"{self.task.data.get('name', 'Corridor')} {NUMBERS[self.task.seed % 10]}"
        return f"{place}: the lamp is {lamp(self.task)}, you stand at {self.at}."

    def _info(self) -> dict[str, Any]:
        return {"actions": ["right", "left", "wait"], "score": float(self.at == self._goal()), "notes": "Walk to the lamp."}

    def _log(self) -> None:
        if "log" in self.task.data:
            file = os.open(self.task.data["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, f"{self.task.id}\n".encode())
            os.close(file)


class Broken(Corridor):
    """A corridor that falls in at the second step of the tasks with an odd seed."""

    def step(self, action: str) -> Step:
        if self.turns == 1 and self.task.seed % 2:
            raise OSError("the ceiling came down")
        return super().step(action)


class Free(Corridor):
    """A corridor that does not say what may be done."""

    def _info(self) -> dict[str, Any]:
        return super()._info() | {"actions": []}


class Full(Corridor):
    """A corridor at whose end this process may write no further in any file that is longer than a line."""

    def close(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))


class Unopened:
    """A world that cannot even be made."""

    def __init__(self) -> None:
        raise OSError("no way in")


def lamp(task: Task) -> str:
    """Where the lamp is: "left" or "right"."""
    return "right" if task.seed % 2 else "left"


def make_tasks(n: int, env: str = "Corridor", split: Split = "train", **data: Any) -> list[Task]:
    """The first `n` tasks of a split, each with `data`."""
    first = {"train": 0, "val": 100, "test": 200}[split]
    return [
        Task(id=f"corridor/{split}/{seed}", env=f"worlds:{env}", split=split, seed=seed, data=data)
        for seed in range(first, first + n)
    ]


def task_file(folder: Path, stem: str = "corridor", **settings: Any) -> Path:
    """A task set's YAML over the corridor."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.yaml"
    path.write_text(TASKS.format(settings=settings), "utf-8")
    return path


def new_run(folder: Path, **settings: Any) -> Run:
    """A quiet run whose memory, if it gets one, is embedded by hashed words: no weights are read."""
    run = Run(folder, quiet=True, **settings)
    run.part("memory", str((folder / "memory").resolve()), lambda: open_memory(folder / "memory", embedder=HashEmbedder()))
    return run


def use_model(run: Run, model: Model, policy: Policy) -> Policy:
    """Let `model` answer for `policy` in this run."""
    run.part("model", f"{policy.model} {policy.api_base} None {policy.threads}", lambda: model)
    return policy


def walker(messages: Any, choices: Any) -> str:
    """Walks to the lamp."""
    return "right" if "the lamp is right" in messages[-1].content else "left"


def learner(messages: Any, choices: Any) -> str:
    """Walks to the lamp when it recalls a game that was won, and waits without."""
    return walker(messages, choices) if any("was won" in message.content for message in messages) else "wait"


class Metered:
    """A model whose calls cost ten tokens of the run's budget each."""

    name = "metered"
    native_tools = False

    def __init__(self, run: Run, model: Model, before: Callable[[], None] = lambda: None) -> None:
        self._run, self._model, self._before = run, model, before

    def complete(self, messages: Any, **asked: Any) -> Reply:
        self._before()
        with self._run.budget.reserve(10, 0.0) as book:
            reply = self._model.complete(messages, **asked)
            usage = reply.usage.model_copy(update={"prompt_tokens": 9, "completion_tokens": 1})
            book(usage)
        return reply._replace(usage=usage)

    def count(self, text: str) -> int:
        return self._model.count(text)

    def close(self) -> None:
        pass


def side_by_side(do: Callable[[Task], None], tasks: list[Task]) -> None:
    """Do it for each task in a thread of its own, all at once, and wait for them."""
    threads = [threading.Thread(target=do, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def gist(trajectory: Trajectory) -> tuple[Any, ...]:
    """What of an attempt does not hang on the clock."""
    said = tuple((turn.action, turn.observation, turn.actions) for turn in trajectory.turns)
    kept = trajectory.model_dump(
        include={"id", "seed", "recalled", "demos", "context", "reward", "end", "error", "policy", "phase"}
    )
    return said, tuple(map(str, kept.values()))
