"""The agent: a LangGraph graph, recall → act → observe ⟲, until the environment ends. The only file that imports langgraph.

The state holds the conversation, which only grows at its end, so that a backend's prompt cache serves every step; the parts
(environment, model, memory) travel in the graph's context.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from agentevolve.act.prompting import cleaned_tools, exchange, opening, render, rules, shown
from agentevolve.memory import embedded_tokens
from agentevolve.models.stand_ins import RandomModel, at_random
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError, Environment, Memory, Model, ModelError, Reply
from agentevolve.records import Entry, Message, Task, Turn, Usage

ENDLESS = 2**31 - 1  # graph steps: how long an episode is, the environment alone decides


@dataclass
class Attempt:
    """One attempt under way: its parts, and what it has lived through so far, which outlives a crash of the graph.

    `alive` is called before each turn and raises where nothing more may be done.
    """

    task: Task
    policy: Policy
    memory: Memory | None
    rng: random.Random
    hint: str = ""
    alive: Callable[[], None] = lambda: None
    environment: Environment = field(init=False)
    model: Model | None = None
    system: str = ""
    prompt: str = ""
    actions: tuple[str, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    context: str = ""
    recalled: tuple[str, ...] = ()
    lookup: Usage = field(default_factory=Usage)
    failed: Usage = field(default_factory=Usage)
    asked: tuple[str, ...] = ()
    turns: list[Turn] = field(default_factory=list)
    reward: float = 0.0
    end: Literal["terminated", "truncated", "error"] = "error"


class State(TypedDict):
    """What flows through the graph: the conversation, the actions that are admissible now, and what was just chosen."""

    messages: list[Message]
    actions: tuple[str, ...]
    reply: Reply


def play(attempt: Attempt) -> Attempt:
    """Play the attempt's task from reset to end; `attempt` is filled in as it goes, whatever is raised on the way."""
    state = State(messages=[], actions=(), reply=Reply("", Usage()))
    _graph().invoke(state, context=attempt, config={"recursion_limit": ENDLESS})
    return attempt


@functools.cache
def _graph() -> Any:
    graph = StateGraph(State, context_schema=Attempt)
    graph.add_node("recall", _recall)
    graph.add_node("act", _act)
    graph.add_node("observe", _observe)
    graph.add_edge(START, "recall")
    graph.add_edge("recall", "act")
    graph.add_edge("act", "observe")
    graph.add_conditional_edges("observe", _next)
    return graph.compile()


def _recall(state: State, runtime: Runtime[Attempt]) -> dict[str, Any]:
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
    entries = remembered(attempt)
    attempt.recalled, attempt.context = tuple(entry.id for entry in entries), recalled_text(entries)
    asked = shown(attempt.prompt, attempt.actions, attempt.policy.show_actions)
    context = "\n".join(part for part in (attempt.context, attempt.hint) if part)
    return {"messages": opening(attempt.system, context, asked), "actions": attempt.actions}


def _act(state: State, runtime: Runtime[Attempt]) -> dict[str, Any]:
    """Choose the next action: at random with probability epsilon, else by the model."""
    attempt, policy = runtime.context, runtime.context.policy
    attempt.alive()
    seed = attempt.rng.randrange(2**31)
    explores = attempt.rng.random() < policy.epsilon or (isinstance(attempt.model, RandomModel) and not state["actions"])
    if explores and (action := at_random(attempt.environment, state["actions"], attempt.tools, attempt.rng)) is not None:
        return {"reply": Reply(action, Usage())}
    return {"reply": _ask(attempt, state, seed)}


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


def _observe(state: State, runtime: Runtime[Attempt]) -> dict[str, Any]:
    """Take the action and note what came back."""
    attempt = runtime.context
    reply = state["reply"]
    step = attempt.environment.step(reply.text)
    actions = _shuffled(step.info, attempt.rng)
    turn = Turn(
        action=reply.text,
        thinking=reply.thinking,
        observation=step.observation,
        actions=actions,
        reward=step.reward,
        usage=reply.usage,
        info={"raw": step.info["raw"]} if "raw" in step.info else {},
    )
    attempt.turns.append(turn)
    attempt.reward = min(1.0, max(0.0, float(step.info.get("score", attempt.reward + step.reward))))
    if step.terminated or step.truncated:
        attempt.end = "terminated" if step.terminated else "truncated"
    said, seen = exchange(turn, attempt.policy.show_actions)
    if reply.thinking:
        said = said.model_copy(update={"thinking": reply.thinking})
    return {"messages": [*state["messages"], said, seen], "actions": actions}


def _next(state: State, runtime: Runtime[Attempt]) -> str:
    return "act" if runtime.context.end == "error" else END


def _shuffled(info: dict[str, Any], rng: random.Random) -> tuple[str, ...]:
    """The admissible actions in an order of the attempt's own, so that a position in the list means nothing."""
    actions = sorted(info.get("actions", ()))
    rng.shuffle(actions)
    return tuple(actions)


def remembered(attempt: Attempt) -> list[Entry]:
    """The entries the policy recalls for this task, in the order in which they are shown, as many as fit into its tokens."""
    if attempt.memory is None:
        return []
    if any(attempt.policy.recall.nearest.values()):
        attempt.lookup = Usage(embedded_tokens=embedded_tokens(attempt.prompt))
    kept, room = [], attempt.policy.recall.tokens * 4
    for entry in _wanted(attempt, attempt.memory):
        if entry not in kept and len(entry.text) <= room:
            kept.append(entry)
            room -= len(entry.text)
    return kept


def _wanted(attempt: Attempt, memory: Memory) -> Iterator[Entry]:
    recall, env, as_of = attempt.policy.recall, attempt.task.env, attempt.policy.as_of
    for kind in recall.whole:
        yield from memory.entries(as_of, kind, env)
    for kind, k in recall.own.items():
        held = memory.entries(as_of, kind, env)
        own = [entry for entry in held if entry.task == attempt.task.id][-k:] if k else []
        others = [entry for entry in held if entry.task != attempt.task.id]
        yield from _drawn(attempt, others, len(own)) if recall.shuffled else own
    for kind, k in recall.nearest.items():
        n = 10**6 if recall.shuffled else k
        found = [entry for entry, _ in memory.recall(attempt.prompt, env=env, k=n, as_of=as_of, kind=kind)] if k else []
        yield from _drawn(attempt, found[k:], k) if recall.shuffled else found


def _drawn(attempt: Attempt, others: list[Entry], k: int) -> list[Entry]:
    """A draw that leaves the attempt's luck as it is, so that it acts under the same luck with and without it."""
    rng = random.Random()
    rng.setstate(attempt.rng.getstate())
    return rng.sample(others, min(k, len(others)))


def recalled_text(entries: list[Entry]) -> str:
    """The recalled entries as the agent reads them; nothing when there are none."""
    return render("recall", entries=entries) if entries else ""
