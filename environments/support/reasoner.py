"""The process in which the package reasoning_gym lives: it makes items and scores answers, on request.

In a process of its own because the package draws from Python's and numpy's global generators, leans on the order of sets (here
always the same: the hash seed is fixed), prints, and hands answers to parsers that can take for ever: a process can be killed.
Answers are not evaluated: see `_scored`. Requests and replies are JSON; it ends when its standard input closes.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import enum
import functools
import importlib
import json
import os
import random
import re
import sys
from fractions import Fraction
from multiprocessing.connection import Connection
from typing import Any

DRAWN = ("acre", "gsm_symbolic", "list_functions")  # datasets whose items depend on the seed that the dataset is made with
LONGEST = 2_000  # characters of a formula or a list that is parsed
MEMORY = 4 << 30  # bytes of address space: a formula may stand for a number of any length
# datasets whose scorer hands the answer to eval: only Python's literals are taken
LITERALS = ("binary_matrix", "n_queens", "spiral_matrix", "string_insertion")
# datasets whose scorer hands the answer to sympy, which evaluates it as Python: only formulas are taken, of numbers with + - * /
SUMS = ("countdown", "puzzle24")
# and of numbers, letters and functions
FORMULAS = ("intermediate_integration", "polynomial_multiplication", "simple_integration")
FUNCTIONS = re.compile("sin|cos|tan|sec|csc|cot|asin|acos|atan|sinh|cosh|tanh|exp|log|ln|sqrt|pi|erf|Abs|[A-Za-z]")


def main() -> None:
    """Answer requests until there are no more."""
    requests, replies = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # what the package prints is nobody's business
        os.dup2(null, number)
    if sys.platform == "linux":
        resource = importlib.import_module("resource")
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    while True:
        try:
            request = json.loads(requests.recv_bytes())
        except EOFError:
            return
        try:
            reply = {"value": DUTIES[request.pop("duty")](**request)}
        except Refused as error:
            reply = {"refused": str(error)}
        except Exception as error:
            reply = {"broken": f"{type(error).__name__}: {error}"}
        replies.send_bytes(json.dumps(reply).encode())


class Refused(Exception):
    """The settings cannot be met; says why."""


def question(**which: Any) -> str:
    """The text of an item: of the one that the `dataset` with this `config` makes from `seed`."""
    return str(_item(**which)[1]["question"])


def answer(**which: Any) -> str | None:
    """The shipped answer; None where the package has none."""
    found = _item(**which)[1]["answer"]
    return None if found is None else str(found)


def score(reply: str, **which: Any) -> float:
    """The scorer's opinion of an answer, in [0, 1]; 0 when it cannot make out the answer."""
    made, item = _item(**which)
    tried = [reply] if reply == reply.strip() else [reply, reply.strip()]
    return max(_scored(which["dataset"], made, item, one) for one in tried)


DUTIES = {"question": question, "answer": answer, "score": score}


def _item(dataset: str, config: dict[str, Any], seed: int) -> tuple[Any, dict[str, Any]]:
    return _made(dataset, json.dumps(config, sort_keys=True), seed)


@functools.lru_cache(256)
def _made(dataset: str, config: str, seed: int) -> tuple[Any, dict[str, Any]]:
    """The item, and the dataset of it alone."""
    if dataset in DRAWN:
        made = _dataset(dataset, config, seed)
    else:  # many read a file when they are made, which takes a thousand times as long as an item
        made = copy.copy(_kept(dataset, config))
        made.seed, made.config = seed, dataclasses.replace(made.config, seed=seed)
    random.seed(seed)
    importlib.import_module("numpy").random.seed(seed)
    return made, made[0]


@functools.lru_cache(32)
def _kept(dataset: str, config: str) -> Any:
    return _dataset(dataset, config, 0)


def _dataset(dataset: str, config: str, seed: int) -> Any:
    gym, options = _package(), json.loads(config)
    if dataset not in gym.DATASETS:
        raise Refused(f"settings.dataset: unknown dataset {dataset!r}; known: {', '.join(sorted(gym.DATASETS))}")
    fields = dataclasses.fields(gym.DATASETS[dataset][1])
    try:
        for field in fields:
            if field.name in options and isinstance(field.default, enum.Enum):
                options[field.name] = type(field.default)(options[field.name])
        return gym.create_dataset(dataset, **options, seed=seed, size=1)
    except (TypeError, ValueError, AssertionError, LookupError) as error:
        known = ", ".join(sorted({field.name for field in fields} - {"seed", "size"})) or "none"
        raise Refused(f"settings.config: {dataset} does not take it: {error}; known: {known}") from None


@functools.cache
def _package() -> Any:
    """The package's registry, its uses of eval on answers disarmed."""
    importlib.import_module("reasoning_gym")
    gym = importlib.import_module("reasoning_gym.factory")
    for name in LITERALS:
        importlib.import_module(gym.DATASETS[name][0].__module__).eval = ast.literal_eval
    return gym


def _scored(dataset: str, made: Any, item: dict[str, Any], reply: str) -> float:
    if not reply or (dataset in (*SUMS, *FORMULAS) and not _harmless(dataset, reply)):
        return 0.0
    if dataset in LITERALS and len(reply) > LONGEST:
        return 0.0
    try:
        found = float(made.score_answer(reply, copy.deepcopy(item))) if _to_the_point(dataset, item, reply) else 0.0
    except Exception:  # a scorer that stumbles over an answer
        return 0.0
    return min(1.0, max(0.0, found)) if found == found else 0.0


def _to_the_point(dataset: str, item: dict[str, Any], reply: str) -> bool:
    """Whether the answer is not one that a careless scorer takes for right: three of them are, as far as we know."""
    if dataset == "game_of_life_halting":  # any text at all
        return bool(reply == item["answer"])
    if dataset == "puzzle24":  # any four numbers that make 24
        return sorted(map(int, re.findall(r"\d+", reply))) == sorted(item["metadata"]["numbers"])
    if dataset == "coin_flip":  # any beginning of the number
        return abs(Fraction(reply.replace(",", "")) - Fraction(item["answer"])) < 1e-4
    return True


def _harmless(dataset: str, reply: str) -> bool:
    """Whether the answer is nothing but a formula, so that evaluating it does nothing else."""
    if len(reply) > LONGEST or not re.fullmatch(r"[0-9()+\-*/\s]*" if dataset in SUMS else r"[0-9A-Za-z()+\-*/.,\s]*", reply):
        return False
    if dataset in SUMS:
        return "**" not in reply
    return all(FUNCTIONS.fullmatch(name) for name in re.findall(r"[A-Za-z][0-9A-Za-z]*", reply))


if __name__ == "__main__":
    main()
