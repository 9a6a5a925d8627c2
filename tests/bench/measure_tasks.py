"""Measure how often the random arm and the oracle solve a task set, and with --write keep the figures in its YAML.

    python tests/bench/measure_tasks.py coin twc --n 100 --split val --write

The random arm takes one of the shown actions, all alike likely, from a generator seeded with the task's id; in a world of
tools it calls one with arguments drawn by their types, in a world of free text it takes what the world itself samples.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import yaml
from scipy.stats import binomtest
from tqdm import tqdm

from agentevolve.load import load_environment, load_task_set, task_sets, tasks_of
from agentevolve.models.stand_ins import at_random
from agentevolve.protocols import Environment
from agentevolve.records import SOLVED, Task

TASKS = Path(__file__).parents[2] / "tasks"


def play_random(env: Environment, task: Task) -> tuple[float, list[int]]:
    """The final score of one episode of uniformly chosen actions, and how many there were to choose from at each step."""
    choose = random.Random(task.id)
    _, info = env.reset(task)
    tools, offered = info.get("tools", ()), []
    while True:
        actions = info.get("actions", ())
        offered.append(len(actions or tools))
        _, _, terminated, truncated, info = env.step(at_random(env, actions, tools, choose))
        if terminated or truncated:
            return float(info["score"]), offered


def play_oracle(env: Environment, task: Task) -> tuple[float, list[int]]:
    """The final score of one episode of the oracle's actions."""
    actions = env.oracle(task)
    _, info = env.reset(task)
    for action in actions:
        _, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            break
    return float(info["score"]), []


def measure(name: str, split: str, n: int) -> list[dict[str, Any]]:
    """One figure an arm, with its 95% Wilson interval."""
    tasks = tasks_of(load_task_set(name), split, limit=n)
    env = load_environment(load_task_set(name).env)()
    figures = []
    for arm, play in (("random", play_random), ("oracle", play_oracle)):
        played = {task.id: play(env, task) for task in tqdm(tasks, desc=f"{name} {arm}", disable=None, leave=False)}
        missed = [id for id, (score, _) in played.items() if score < SOLVED]
        offered = [number for _, numbers in played.values() for number in numbers]
        solved = len(tasks) - len(missed)
        interval = binomtest(solved, len(tasks)).proportion_ci(method="wilson")
        low, high = round(float(interval.low), 3), round(float(interval.high), 3)
        command = f"python tests/bench/measure_tasks.py {name} --n {n} --split {split}"
        figure = {"arm": arm, "split": split, "n": len(tasks), "success": round(solved / len(tasks), 3), "low": low, "high": high}
        print(f"{name:14} {arm:7} {split} n={len(tasks)} {figure['success']:.2f} [{low:.2f}, {high:.2f}]", flush=True)
        if arm == "oracle" and missed:
            print("  missed:", *missed)
        if any(offered):
            figure["actions"] = round(sum(offered) / len(offered), 1)
        figures.append({**figure, "command": command})
    env.close()
    return figures


def write(name: str, figures: list[dict[str, Any]]) -> None:
    """Replace the `measured` block, which is the last one of the file."""
    path = TASKS / f"{name}.yaml"
    head = path.read_text(encoding="utf-8").split("measured:\n")[0]
    path.write_text(head + yaml.safe_dump({"measured": figures}, sort_keys=False, width=200), encoding="utf-8")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="task sets (default: all that are shipped)")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--split", default="val")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    for name in args.names or list(task_sets()):
        figures = measure(name, args.split, args.n)
        if args.write:
            write(name, figures)


if __name__ == "__main__":
    main()
