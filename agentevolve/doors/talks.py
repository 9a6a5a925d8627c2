"""Conversations that somebody else's harness has with our policy: each recalls at its start, and is journalled as an attempt.

A harness sends the whole conversation with every request. Which of ours it goes on with is known by its messages: they begin with
all that was said before, our answers included, to the letter. What it says next is the observation after our last action.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agentevolve.act.attempt import counter, parts
from agentevolve.act.prompting import cleaned_tools, opening
from agentevolve.act.recall import Asked, Recalled, at_start
from agentevolve.models.tools import Tool, read, written
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError, Reply
from agentevolve.records import Message, Split, Task, Trajectory, Turn, Usage
from agentevolve.run.folder import Run

SERVED = "served/"  # what the ids of tasks begin with
LEARNABLE, SEEN = "1/acquire", "served"  # the phases of conversations to learn from, and of those that only were
MOST = 10_000  # conversations under way


class Wanted(NamedTuple):
    """What a harness says of a conversation and its answer: its name for the task, and whether that is one to learn from (any
    split but train is only measured); one of `choices`, or a call of `tools`; the answer ends before the first of `stop`.
    """

    task: str = ""
    split: Split = "train"
    choices: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    stop: tuple[str, ...] = ()


WANTED = Wanted()


@dataclass
class Talk:
    """One conversation: what came before our first answer, what was recalled, and our turns."""

    task: Task
    number: int
    before: list[Message]
    tools: tuple[Tool, ...]
    recalled: Recalled
    turns: list[Turn] = field(default_factory=list)
    said: list[Message] = field(default_factory=list)  # as the harness has seen it
    asked: tuple[str, ...] = ()
    failed: Usage = field(default_factory=Usage)  # what answers cost that came to nothing
    over: bool = False  # it is journalled: what is still being answered comes too late
    began: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        """By which the harness may name it."""
        return f"{self.task.id}/{self.number}"


class Talks:
    """The conversations with `policy` that `run` journals, in the world `env`."""

    def __init__(self, policy: Policy, run: Run, env: str) -> None:
        self.policy, self.run, self.env = policy, run, env
        self._open: dict[str, dict[int, Talk]] = {}  # those that can be gone on with, by all that was said in them
        self._waiting: dict[str, dict[int, Talk]] = {}  # those without a reward, by their task
        self._lock = threading.Lock()
        every = run.outcomes_of(lambda _: True, lost=True)
        served = (one.sample for one in every if one.task.id.startswith(SERVED))
        self._numbers = itertools.count(1 + max(served, default=-1))

    def answer(self, messages: Sequence[Message], wanted: Wanted = WANTED, **asked: Any) -> tuple[Reply, Talk]:
        """The policy's answer to a conversation, and the talk that it belongs to; `asked` is passed on to the model."""
        model, _ = parts(self.policy, self.run)
        if model is None:
            raise AgentevolveError("the oracle answers nobody: it has no model")
        talk = self._continued(messages) or self._begun(messages, wanted)
        choices = () if talk.tools else wanted.choices
        try:
            self.run.budget.alive()
            reply = model.complete(_shown(talk, messages), choices=choices, tools=talk.tools, **asked)
        except BaseException as error:
            self._unanswered(talk, getattr(error, "usage", Usage()))
            raise
        reply = _as_sent(reply, talk.tools, wanted.stop)
        with self._lock:
            late = talk.over
            if not late:
                talk.turns.append(Turn(action=reply.text, thinking=reply.thinking, observation="", usage=reply.usage))
                talk.said = [*messages, Message(role="assistant", content=reply.text)]
                talk.asked = tuple(dict.fromkeys((*talk.asked, reply.asked)))
                self._waiting.setdefault(talk.task.id, {})[talk.number] = talk
                self._open.setdefault(_key(talk.said), {})[talk.number] = talk
        if late:
            self._lose(talk, reply.usage)
        self._forget_some()
        return reply, talk

    def reward(self, name: str, reward: float) -> int:
        """Journal, with this reward in [0, 1], the conversation of that id, or all of that task that have none; how many."""
        with self._lock:
            tasks = [name] if name in self._waiting else [name.rpartition("/")[0]]
            found = [one for task in tasks for one in self._waiting.get(task, {}).values() if name in (task, one.id)]
            self._leave(found)
        for one in found:
            self.run.add(self._lived(one, LEARNABLE if one.task.split == "train" else SEEN, reward))
        return len(found)

    def close(self) -> None:
        """Journal what has had no reward: as it was, in a phase that nothing learns from."""
        with self._lock:
            left = [one for waiting in self._waiting.values() for one in waiting.values()]
            self._leave(left)
        for one in left:
            self.run.add(self._lived(one, SEEN, None))

    def _unanswered(self, talk: Talk, spent: Usage) -> None:
        """Let the harness ask again what could not be answered, and keep what that has cost."""
        with self._lock:
            kept = bool(talk.said) and not talk.over
            if kept:
                talk.failed += spent
                self._open.setdefault(_key(talk.said), {})[talk.number] = talk
        if not kept:
            self._lose(talk, spent if talk.said else spent + talk.recalled.lookup)

    def _lose(self, talk: Talk, spent: Usage) -> None:
        """Journal what was spent on a conversation that it is not, or no longer, told with."""
        if spent != Usage():
            self.run.lose(f"{SEEN}/{talk.id}", spent)

    def _leave(self, talks: Sequence[Talk]) -> None:
        """Let nothing be added to these conversations, which are about to be journalled."""
        for talk in talks:
            talk.over = True
            for places, place in ((self._open, _key(talk.said)), (self._waiting, talk.task.id)):
                alike = places.get(place, {})
                alike.pop(talk.number, None)
                if not alike:
                    places.pop(place, None)

    def _continued(self, messages: Sequence[Message]) -> Talk | None:
        """The talk that these messages go on with: they begin with all that was said in it, and then say something new."""
        last = max((place for place, one in enumerate(messages) if one.role == "assistant"), default=-1)
        with self._lock:
            key = _key(messages[: last + 1])
            alike = self._open.get(key, {}) if last >= 0 else {}
            if not alike:
                return None
            talk = alike.pop(min(alike))  # nothing tells those apart in which the same was said to the letter
            if not alike:
                del self._open[key]
            seen = "\n".join(one.content for one in messages[last + 1 :])
            talk.turns[-1] = talk.turns[-1].model_copy(update={"observation": seen})
        return talk

    def _begun(self, messages: Sequence[Message], wanted: Wanted) -> Talk:
        prompt = _prompt(messages)
        named = wanted.task or hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        task = Task(id=f"{SERVED}{named}", env=self.env, split=wanted.split, prompt=prompt)
        with self._lock:
            number = next(self._numbers)
        _, memory = parts(self.policy, self.run)
        recalled, given = Recalled(), cleaned_tools(wanted.tools)
        if memory is not None:
            rng = self.run.rng("served", task.id, number)
            count = counter(self.policy, self.run)
            recalled = at_start(memory, Asked(self.policy, task, prompt, rng, False, bool(given), wanted.split != "train", count))
        return Talk(task, number, list(messages), given, recalled)

    def _lived(self, talk: Talk, phase: str, reward: float | None) -> Trajectory:
        system, shots, prompt = _opened(talk.before)
        return Trajectory(
            id=f"{phase}/{talk.task.id}/{talk.number}",
            task=talk.task,
            policy=self.policy.stamp(),
            phase=phase,
            sample=talk.number,
            system=system,
            prompt=prompt,
            tools=talk.tools,
            recalled=talk.recalled.ids,
            demos=(*talk.recalled.demos, *shots),
            context=talk.recalled.context,
            looked=talk.recalled.looked,
            lookup=talk.recalled.lookup,
            failed=talk.failed,
            asked=talk.asked,
            turns=tuple(talk.turns),
            reward=reward or 0.0,
            end="truncated" if reward is None else "terminated",
            seconds=time.monotonic() - talk.began,
        )

    def _forget_some(self) -> None:
        """A harness that never says how its conversations ended does not fill the memory of this machine."""
        with self._lock:
            talks = [talk for alike in self._open.values() for talk in alike.values()]
            oldest = talks[: max(0, len(talks) - MOST)]
            self._leave(oldest)
        for talk in oldest:
            self.run.add(self._lived(talk, SEEN, None))


def _shown(talk: Talk, messages: Sequence[Message]) -> list[Message]:
    """What the model is shown: the harness's messages, with what was recalled before the task and in front of it."""
    system, shots, prompt = _opened(talk.before)
    head = opening(system, talk.recalled.context, prompt, (*talk.recalled.demos, *shots))
    return [*head, *messages[len(talk.before) :]]


def _opened(before: Sequence[Message]) -> tuple[str, list[Message], str]:
    """What came before our first answer: the system message, examples that were shown as turns, and the task."""
    last = max((place for place, one in enumerate(before) if one.role == "assistant"), default=-1)
    shots = [one for one in before[: last + 1] if one.role != "system"]
    return "\n".join(one.content for one in before if one.role == "system"), shots, _prompt(before)


def _prompt(messages: Sequence[Message]) -> str:
    """What is asked last, after any answer: the task."""
    last = max((place for place, one in enumerate(messages) if one.role == "assistant"), default=-1)
    return "\n".join(one.content for one in messages[last + 1 :] if one.role == "user")


def _as_sent(reply: Reply, tools: Sequence[Tool], stop: Sequence[str]) -> Reply:
    """The reply in the letters that come back with the next request: a call in the house's own form, words up to a stop."""
    if calls := read(reply.text) if tools else []:
        return reply._replace(text=written(calls))
    text = reply.text
    for one in filter(None, stop):
        text = text.partition(one)[0]
    return reply._replace(text=text)


def _key(messages: Sequence[Message]) -> str:
    found = hashlib.sha256()
    for one in messages:
        found.update(f"{one.role}\0{one.content}\0".encode("utf-8", "surrogatepass"))
    return found.hexdigest()
