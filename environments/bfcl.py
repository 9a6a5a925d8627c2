"""BFCL multi-turn: several requests of one user, each to be met by calling functions of small, stateful APIs.

Description
    The multi-turn tasks of the Berkeley Function Calling Leaderboard v4: a file system, a car, a trading desk, travel, tickets,
    messages, tweets and sums, one or two of them a task, one to seven requests. `Task.data`: `category`: `base`, `miss_param` (a
    request lacks something, and the user adds it in the next one) or `long_context` (results are padded with much that does not
    matter); `limit`, the most actions. `miss_func` is left out: there the functions change while the task runs.
Observation
    At first the user's first request; after calls their results, one a line, as the package writes them; after the end of a turn
    the user's next request.
Actions
    Calls of the functions in `info["tools"]`, or `end_turn`, which ends the turn as plain text does (a list of tools that must be
    chosen from needs a way to say nothing). Of a list of calls those after `end_turn` are not made. Unreadable JSON, unknown
    functions and unfit arguments are answered "Error …". Nothing is evaluated: a function is looked up by its name among the
    documented ones and called with JSON values. MathAPI takes no exponent, precision or number of places beyond ±1000, no whole
    number beyond ±1e30 and no text for a number, as its answers could take hours.
Reward
    1 after the last turn if the package's rules hold for every turn in which the solution calls something: the agent called
    something too, the APIs' public state is then the one that the solution reaches, and its results are among the agent's so far.
    The agent may make other calls besides.
Termination
    When the last turn was ended; truncation after `limit` actions (the package instead stops after 20 steps of one turn).
Splits
    The package has none. Ours: its 200 tasks in a fixed order, drawn by hash, with the same number in every category; seeds 0–99
    are train, 100–139 val, 140–199 test. Tasks that share a scenario or a request lie in one split.
Source
    Patil et al., The Berkeley Function Calling Leaderboard (ICML 2025), the PyPI package `bfcl-eval` (Apache-2.0). Its declared
    dependencies clash with ours and are not needed, so its wheel is fetched alone at first use (2 MB).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from agentevolve.environments.support.bfcl import CATEGORIES, END, ORDER, World, load, named, parsed, rows, tools
from agentevolve.environments.support.settings import check_limit, read_settings
from agentevolve.models.tools import Call, read, written
from agentevolve.protocols import AgentevolveError, Environment, Step
from agentevolve.records import Task

NEEDS = ("mpmath",)
SEEDS = {"train": range(100), "val": range(100, 140), "test": range(140, 200)}
NOTES = """\
You are an expert in composing functions. A user makes one request after the other. Meet each of them by calling functions, as \
many as it takes; their results come back to you. Once the request is met to the best of your ability, end your turn, by \
end_turn or with plain text: then comes the user's next request. If no function fits, or if something is missing that a function \
needs, say so and end your turn."""
_DEFAULTS: dict[str, Any] = {"category": "base", "limit": 50}


def make() -> Environment:
    """A new environment; raises AgentevolveError when the package cannot be fetched."""
    load()
    return Bfcl()


def check(data: dict[str, Any]) -> None:
    """Raise AgentevolveError unless `data` is what the head of this file says of Task.data."""
    category, limit = read_settings(data, _DEFAULTS)
    if category not in CATEGORIES:
        raise AgentevolveError(f"settings.category: unknown category {category!r}; known: {', '.join(CATEGORIES)}")
    check_limit(limit, most=200)


class Bfcl:
    """One task at a time: the agent's world, and one beside it in which the solution is carried out."""

    _running = False

    def reset(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Start `task`. Raises AgentevolveError on unusable data or seed."""
        row, self._solution = _row(task)
        self._limit = (_DEFAULTS | task.data)["limit"]
        self._requests = [messages[0]["content"].strip() for messages in row["question"]]
        self._world, self._model = World(row), World(row)
        self._results: list[str] = []  # of all the agent's calls
        self._calls = self._turn = self._actions = 0  # calls in this turn; turns ended; actions
        self._right = self._running = True
        return self._requests[0], {"tools": tools(row["involved_classes"]), "score": 0.0, "notes": NOTES}

    def step(self, action: str) -> Step:
        """Take one action. Raises RuntimeError without a running episode."""
        if not self._running:
            raise RuntimeError("no episode is running: call reset first")
        self._actions += 1
        said, ended = self._answers(action)
        if ended:
            self._end_turn()
            said.append(self._requests[self._turn] if self._turn < len(self._requests) else "The conversation is over.")
        terminated = self._turn == len(self._requests)
        truncated = not terminated and self._actions >= self._limit
        self._running = not (terminated or truncated)
        score = float(terminated and self._right)
        return Step("\n".join(said), score, terminated, truncated, {"score": score})

    def oracle(self, task: Task) -> list[str]:
        """The package's own solution, call by call."""
        turns = [[Call(name, named(name, *given)) for name, *given in map(parsed, turn)] for turn in _row(task)[1]]
        return [written([call]) for turn in turns for call in (*turn, Call(END["name"], {}))]

    def close(self) -> None:
        """End the episode."""
        self._running = False

    def _answers(self, action: str) -> tuple[list[str], bool]:
        """What an action's calls come back with, and whether it ends the turn."""
        calls, said = read(action), []
        if not calls and action.lstrip()[:1] in ("{", "["):
            return ["Error: this is not the JSON of a call or of a list of calls"], False
        for call in calls:
            if call.name == END["name"]:
                return said, True
            result = self._world.answer(call)
            self._results.append(result)
            self._calls += 1
            said.append(result.encode("utf-8", "backslashreplace").decode())
        return said, not calls

    def _end_turn(self) -> None:
        """Carry out the solution of this turn and compare."""
        wanted = [self._model.call(name, *given) for name, *given in map(parsed, self._solution[self._turn])]
        if wanted:
            found = not Counter(wanted) - Counter(self._results)
            self._right = self._right and self._calls > 0 and found and self._world.same(self._model)
        self._calls, self._turn = 0, self._turn + 1


def _row(task: Task) -> tuple[dict[str, Any], list[list[str]]]:
    """The package's task and its solution: calls as Python writes them, by turns."""
    check(task.data)
    seeds = SEEDS[task.split]
    if task.seed not in seeds:
        raise AgentevolveError(f"task {task.id}: seed {task.seed} is not of {task.split}; its seeds are {seeds[0]}–{seeds[-1]}")
    asked, answers = rows((_DEFAULTS | task.data)["category"])
    return asked[ORDER[task.seed]], answers[ORDER[task.seed]]["ground_truth"]
