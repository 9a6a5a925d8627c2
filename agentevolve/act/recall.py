"""What the agent is shown of its memory: which entries, how much of them, and in which form.

An earlier attempt is shown as the turns that it was, in exactly the form in which the agent acts; all else is shown as text
right before the task. What does not fit is left out, an attempt that does not fit is shortened in its middle.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from agentevolve.act.prompting import lived_messages, render, transcript
from agentevolve.memory import embedded_tokens
from agentevolve.policy import Policy
from agentevolve.protocols import Memory
from agentevolve.records import Entry, Lived, Message, Task, Usage

SOLUTIONS = ("demo", "case", "workflow", "skill")  # kinds that may tell how a task is solved
LOOKED_UP = 2  # the first group of entries that were looked up: one group a kind
FRAME = 4  # tokens that a chat template puts around a message, about


class Recalled(NamedTuple):
    """What was recalled, in the order in which it is shown: earlier attempts as `demos`, the rest as text in `context`.

    `cut` of the entries were shortened; `tokens` is how much was used of what may be; `lookup` what finding them cost.
    """

    ids: tuple[str, ...] = ()
    demos: tuple[Message, ...] = ()
    context: str = ""
    cut: int = 0
    tokens: int = 0
    lookup: Usage = Usage()


class Asked(NamedTuple):
    """For whom memory is looked into: the policy, the task, the text that nearness is measured to, the luck of the attempt.

    `choosing` says whether the world lists actions; `measured` attempts are never shown a solution of their own task.
    `count` gives a text's tokens.
    """

    policy: Policy
    task: Task
    query: str
    rng: random.Random
    choosing: bool
    measured: bool
    count: Callable[[str], int]


def at_start(memory: Memory, asked: Asked) -> Recalled:
    """What is shown before the task."""
    looked = asked.policy.recall.when != "stuck"
    found = _fitting(_wanted(memory, asked, looked=looked), asked, asked.policy.recall.tokens, as_turns=True)
    return _shown(found, asked)._replace(lookup=_cost(asked) if looked else Usage())


def at_turn(memory: Memory, asked: Asked, before: Collection[str], tokens: int) -> Recalled:
    """What more is shown at a later turn, as text, within `tokens`: the nearest to what is seen now that were not shown yet."""
    found = _fitting(_nearest(memory, asked, before), asked, tokens, as_turns=False)
    entries = [entry for entry, _ in found.kept]
    context = render("recall", entries=entries, ending="Your game goes on:") if entries else ""
    return Recalled(tuple(entry.id for entry in entries), (), context, found.cut, found.tokens, _cost(asked))


class _Kept(NamedTuple):
    kept: list[tuple[Entry, Lived | None]]
    cut: int
    tokens: int


def _cost(asked: Asked) -> Usage:
    return Usage(embedded_tokens=embedded_tokens(asked.query)) if any(asked.policy.recall.nearest.values()) else Usage()


def _wanted(memory: Memory, asked: Asked, *, looked: bool) -> Iterator[tuple[int, Entry]]:
    """The entries that the policy wants, the most wanted first, each with the place of its group."""
    recall, env, as_of, task = asked.policy.recall, asked.task.env, asked.policy.as_of, asked.task.id
    for kind in recall.whole:
        for entry in memory.entries(as_of, kind, env):
            if not _tells(entry, asked):
                yield 0, entry
    for kind, k in recall.own.items():
        held = memory.entries(as_of, kind, env)
        own = [entry for entry in held if entry.task == task and not _tells(entry, asked)][-k:] if k else []
        others = [entry for entry in held if entry.task != task]
        for entry in _drawn(asked, others, len(own)) if recall.shuffled else own:
            yield 1, entry
    if looked:
        yield from _nearest(memory, asked, ())


def _nearest(memory: Memory, asked: Asked, before: Collection[str]) -> Iterator[tuple[int, Entry]]:
    recall, env, as_of = asked.policy.recall, asked.task.env, asked.policy.as_of

    def skip(entry: Entry) -> bool:
        return entry.id in before or _tells(entry, asked)

    for place, (kind, k) in enumerate(recall.nearest.items()):
        if not k:
            continue
        ranked = memory.recall(
            asked.query, env=env, k=k, as_of=as_of, kind=kind, skip=skip, difference=recall.difference, words=recall.words
        )
        found = [entry for entry, _ in ranked]
        if recall.shuffled:
            taken = {entry.id for entry in found}
            found = _drawn(asked, [one for one in memory.entries(as_of, kind, env) if one.id not in taken and not skip(one)], k)
        for entry in found:
            yield LOOKED_UP + place, entry


def _tells(entry: Entry, asked: Asked) -> bool:
    """Whether the entry would tell the agent how the very task is solved that it is measured on."""
    return asked.measured and entry.kind in SOLUTIONS and entry.about(asked.task.id)


def _drawn(asked: Asked, others: list[Entry], k: int) -> list[Entry]:
    """A draw that leaves the attempt's luck as it is, so that it acts under the same luck with and without it."""
    rng = random.Random()
    rng.setstate(asked.rng.getstate())
    return rng.sample(others, min(k, len(others)))


def _fitting(wanted: Iterator[tuple[int, Entry]], asked: Asked, tokens: int, *, as_turns: bool) -> _Kept:
    """As many of the wanted entries as fit into `tokens`, each text once; in the order in which they are shown.

    Of each kind that was looked up the nearest comes last.
    """
    kept: list[tuple[int, Entry, Lived | None]] = []
    texts: set[str] = set()
    room, cut = tokens, 0
    for group, entry in wanted:
        if entry.text in texts:
            continue
        found = _cut_to(entry, asked, room, as_turns=as_turns and asked.policy.recall.as_turns)
        if found is None:
            continue
        lived, size = found
        cut += lived is not None and lived != entry.lived
        room -= size
        texts.add(entry.text)
        kept.append((group, entry, lived))
    if told := [entry.id for _, entry, _ in kept if _tells(entry, asked)]:
        raise AssertionError(f"{asked.task.id} is measured with a solution of its own in view: {told[0]}")
    looked_up = [one for one in reversed(kept) if one[0] >= LOOKED_UP]
    order = [one for one in kept if one[0] < LOOKED_UP] + sorted(looked_up, key=lambda one: one[0])
    return _Kept([(entry, lived) for _, entry, lived in order], cut, tokens - room)


def _cut_to(entry: Entry, asked: Asked, room: int, *, as_turns: bool) -> tuple[Lived | None, int] | None:
    """The attempt that the entry tells of, shortened as far as `room` tokens ask for, and its size; None if it does not fit."""
    lived = entry.lived
    if lived is None:
        size = asked.count(entry.text)
        return (None, size) if size <= room else None
    for dropped in range(max(1, len(lived.turns) - 1)):
        shorter = shortened(lived, dropped)
        size = _size(shorter, asked, as_turns=as_turns)
        if size <= room:
            return shorter, size
    return None


def _size(lived: Lived, asked: Asked, *, as_turns: bool) -> int:
    if not as_turns:
        return asked.count(transcript(lived))
    return sum(FRAME + asked.count(message.content) for message in lived_messages(lived, asked.policy.show_actions))


def shortened(lived: Lived, dropped: int) -> Lived:
    """The attempt without `dropped` turns of its middle: where they were, a line says how many are left out."""
    if not dropped:
        return lived
    turns, kept = lived.turns, len(lived.turns) - dropped
    head, tail = turns[: -(-kept // 2)], turns[len(turns) - kept // 2 :]
    last, next_seen = head[-1], turns[len(turns) - len(tail) - 1]
    marked = f"{last.observation}\n({dropped} turn{'s' if dropped > 1 else ''} left out)\n{next_seen.observation}"
    bridge = last.model_copy(update={"observation": marked, "actions": next_seen.actions})
    return lived.model_copy(update={"turns": (*head[:-1], bridge, *tail)})


def _shown(found: _Kept, asked: Asked) -> Recalled:
    """The entries as messages and as text."""
    ids = tuple(entry.id for entry, _ in found.kept)
    turns = [(entry, lived) for entry, lived in found.kept if lived and asked.policy.recall.as_turns]
    texts = [_told(entry, lived) for entry, lived in found.kept if not (lived and asked.policy.recall.as_turns)]
    demos, said = _as_turns(turns, asked)
    told = render("recall", entries=texts, ending="Now your game:") if texts else ""
    if said:
        said = f"{said}\n{told}" if told else f"{said} {render('next', choosing=asked.choosing)}"
    return Recalled(ids, tuple(demos), said or told, found.cut, found.tokens)


def _told(entry: Entry, lived: Lived | None) -> Entry:
    return entry if lived is None or lived == entry.lived else entry.model_copy(update={"text": transcript(lived)})


def _as_turns(turns: Sequence[tuple[Entry, Lived]], asked: Asked) -> tuple[list[Message], str]:
    """The attempts as one conversation, and what is said about the last one's outcome."""
    messages: list[Message] = []
    said = ""
    for entry, lived in turns:
        first, *rest = lived_messages(lived, asked.policy.show_actions)
        if said:
            first = first.model_copy(update={"content": f"{said} {render('next', choosing=asked.choosing)}\n{first.content}"})
        messages += [first, *rest]
        said = render("outcome", entry=entry, choosing=asked.choosing)
    return messages, said
