"""The agent: a LangGraph graph, recall → turn ⟲, until the environment ends. The only file that imports langgraph.

A turn is to act and to observe: one node, since each step of a graph costs as much again as all else that is done for it here.
The state holds the conversation, which only grows at its end, so that a backend's prompt cache serves every step; the parts
(environment, model, memory) travel in the graph's context.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict

from agentevolve.act.prompting import cleaned_tools, exchange, opening, rules, shown
from agentevolve.act.recall import Asked, Recalled, at_start, at_turn
from agentevolve.models.stand_ins import RandomModel, at_random
from agentevolve.models.usage import tokens_of
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError, Environment, Memory, Model, ModelError, Reply
from agentevolve.records import Looked, Message, Task, Turn, Usage
from agentevolve.run.spans import span

if TYPE_CHECKING:
    from langgraph.types import Command

ENDLESS = 2**31 - 1  # graph steps: how long an episode is, the environment alone decides


@dataclass
class Attempt:
    """One attempt under way: its parts, and what it has lived through so far, which outlives a crash of the graph.

    `alive` is called before each turn and raises where nothing more may be done. `measured` says that it counts: that it must not
    see a solution of its own task.
    """

    task: Task
    policy: Policy
    memory: Memory | None
    rng: random.Random
    hint: str = ""
    alive: Callable[[], None] = lambda: None
    measured: bool = False
    environment: Environment = field(init=False)
    model: Model | None = None
    system: str = ""
    prompt: str = ""
    actions: tuple[str, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    demos: tuple[Message, ...] = ()
    context: str = ""
    recalled: tuple[str, ...] = ()
    looked: tuple[Looked, ...] = ()
    room: int = 0
    seen: set[tuple[str, ...]] = field(default_factory=set)
    lookup: Usage = field(default_factory=Usage)
    failed: Usage = field(default_factory=Usage)
    asked: tuple[str, ...] = ()
    turns: list[Turn] = field(default_factory=list)
    reward: float = 0.0
    end: Literal["terminated", "truncated", "error"] = "error"


class State(TypedDict):
    """What flows through the graph: the conversation, and the actions that are admissible now."""

    messages: list[Message]
    actions: tuple[str, ...]


class Held(Protocol):
    """What the graph hands to a node besides the state: LangGraph's Runtime, of which the attempt is the context."""

    @property
    def context(self) -> Attempt:
        """The attempt under way."""


def play(attempt: Attempt) -> Attempt:
    """Play the attempt's task from reset to end; `attempt` is filled in as it goes, whatever is raised on the way."""
    _graph().invoke(State(messages=[], actions=()), context=attempt, config={"recursion_limit": ENDLESS})
    return attempt


@functools.cache
def _graph() -> Any:
    from langgraph.graph import END, START, StateGraph

    graph = StateGraph(State, context_schema=Attempt)
    graph.add_node("recall", _recall)
    graph.add_node("turn", _turn, destinations=("turn", END))
    graph.add_edge(START, "recall")
    graph.add_edge("recall", "turn")
    return graph.compile()


def _recall(state: State, runtime: Held) -> dict[str, Any]:
    """Start the world, look into memory, and open the conversation."""
    attempt = runtime.context
    observation, info = attempt.environment.reset(attempt.task)
    notes = str(info.get("notes", ""))
    attempt.tools = cleaned_tools(info.get("tools", ()))
    listed = attempt.model is None or not attempt.model.native_tools
    choosing, instructions = bool(info.get("actions")), attempt.policy.instructions
    attempt.system = rules(attempt.tools, choosing=choosing, listed=listed, instructions=instructions)
    attempt.prompt = "\n".join(part for part in (attempt.task.prompt, notes, observation) if part)
    attempt.actions = _shuffled(info, attempt.rng)
    attempt.room = attempt.policy.recall.tokens
    if attempt.memory is not None:
        asking = _asked(attempt, attempt.prompt, attempt.actions)
        with span("search_memory", memory=attempt.policy.memory, query=asking.query) as told:
            found = at_start(attempt.memory, asking)
            told.set(looked=found.looked)
        attempt.demos, attempt.context, attempt.looked = found.demos, found.context, found.looked
        _note(attempt, found)
    _stuck(attempt, observation, attempt.actions)
    asked = shown(attempt.prompt, attempt.actions, attempt.policy.show_actions)
    context = "\n".join(part for part in (attempt.context, attempt.hint) if part)
    return {"messages": opening(attempt.system, context, asked, attempt.demos), "actions": attempt.actions}


def _asked(attempt: Attempt, query: str, actions: tuple[str, ...]) -> Asked:
    count = attempt.model.count if attempt.model else tokens_of
    return Asked(attempt.policy, attempt.task, query, attempt.rng, bool(actions), bool(attempt.tools), attempt.measured, count)


def _note(attempt: Attempt, found: Recalled) -> None:
    """What was recalled, and how much may still be."""
    attempt.recalled += found.ids
    attempt.room -= found.tokens
    attempt.lookup += found.lookup


def _stuck(attempt: Attempt, observation: str, actions: tuple[str, ...]) -> bool:
    """Whether the world looks as it did before in this attempt; from now on it did."""
    state = (observation, *sorted(actions))
    before = state in attempt.seen
    attempt.seen.add(state)
    return before


def _again(attempt: Attempt, observation: str, actions: tuple[str, ...]) -> Recalled:
    """What is recalled at a later turn; nothing, unless the policy looks into memory then."""
    when = attempt.policy.recall.when
    if attempt.memory is None or when == "start" or (when == "stuck" and not _stuck(attempt, observation, actions)):
        return Recalled()
    asked = _asked(attempt, f"{attempt.prompt}\n{observation}", actions)
    with span("search_memory", memory=attempt.policy.memory, query=asked.query) as told:
        found = at_turn(attempt.memory, asked, attempt.recalled, attempt.room)
        told.set(looked=found.looked)
    _note(attempt, found)
    return found


def _turn(state: State, runtime: Held) -> Command[Any]:
    """Act, observe, and go on until the environment ends."""
    from langgraph.graph import END
    from langgraph.types import Command

    attempt = runtime.context
    update = _observe(attempt, state, _act(attempt, state))
    return Command(update=update, goto="turn" if attempt.end == "error" else END)


def _act(attempt: Attempt, state: State) -> Reply:
    """Choose the next action: at random with probability epsilon, else by the model."""
    attempt.alive()
    seed = attempt.rng.randrange(2**31)
    explores = attempt.rng.random() < attempt.policy.epsilon or (isinstance(attempt.model, RandomModel) and not state["actions"])
    if explores and (action := at_random(attempt.environment, state["actions"], attempt.tools, attempt.rng)) is not None:
        return Reply(action, Usage())
    return _ask(attempt, state, seed)


def _ask(attempt: Attempt, state: State, seed: int) -> Reply:
    """The model's reply, with how it was asked noted; what was paid for nothing stays with the attempt."""
    assert attempt.model is not None
    try:
        reply = attempt.model.complete(
            state["messages"],
            choices=state["actions"],
            tools=attempt.tools,
            temperature=attempt.policy.temperature,
            max_tokens=attempt.policy.options.max_tokens,
            seed=seed,
        )
    except (AgentevolveError, ModelError) as error:
        attempt.failed += error.usage
        raise
    if reply.asked and reply.asked not in attempt.asked:
        attempt.asked += (reply.asked,)
    return reply


def _observe(attempt: Attempt, state: State, reply: Reply) -> State:
    """Take the action and note what came back."""
    with span("execute_tool", action=reply.text, tools=attempt.tools, env=attempt.task.env) as told:
        step = attempt.environment.step(reply.text)
        told.set(step=step)
    actions = _shuffled(step.info, attempt.rng)
    over = step.terminated or step.truncated
    found = Recalled() if over else _again(attempt, step.observation, actions)
    turn = Turn(
        action=reply.text,
        thinking=reply.thinking,
        observation=step.observation,
        actions=actions,
        looked=found.looked,
        context=found.context,
        reward=step.reward,
        usage=reply.usage,
        info={"raw": step.info["raw"]} if "raw" in step.info else {},
    )
    attempt.turns.append(turn)
    attempt.reward = min(1.0, max(0.0, float(step.info.get("score", attempt.reward + step.reward))))
    if over:
        attempt.end = "terminated" if step.terminated else "truncated"
    said, seen = exchange(turn, attempt.policy.show_actions)
    if reply.thinking:
        said = said.model_copy(update={"thinking": reply.thinking})
    return State(messages=[*state["messages"], said, seen], actions=actions)


def _shuffled(info: dict[str, Any], rng: random.Random) -> tuple[str, ...]:
    """The admissible actions in an order of the attempt's own, so that a position in the list means nothing."""
    actions = sorted(info.get("actions", ()))
    rng.shuffle(actions)
    return tuple(actions)
