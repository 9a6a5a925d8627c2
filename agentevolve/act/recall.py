"""What the agent is shown of its memory: which entries, how much of them, and in which form.

An earlier attempt is shown as the turns that it was, in exactly the form in which the agent acts; all else is shown as text
right before the task. What does not fit is left out, an attempt that does not fit is shortened in its middle.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from agentevolve.act.prompting import lived_messages, render, transcript
from agentevolve.memory.form import quoted
from agentevolve.policy import Policy
from agentevolve.protocols import Memory
from agentevolve.records import Entry, Lived, Looked, Message, Task, Usage

SOLUTIONS = ("demo", "case", "workflow", "skill")  # kinds that may tell how a task is solved
LOOKED_UP = 2  # the first group of entries that were looked up: one group a kind
TOLD = 3  # entries after the nearest that are only told of, as those that were left out
FRAME = 4  # tokens that a chat template puts around a message, about


class Recalled(NamedTuple):
    """What was recalled: earlier attempts as `demos`, the rest as text in `context`; and of which entries that was thought.

    `tokens` is how much was used of what may be; `lookup` what finding them cost.
    """

    looked: tuple[Looked, ...] = ()
    demos: tuple[Message, ...] = ()
    context: str = ""
    tokens: int = 0
    lookup: Usage = Usage()

    @property
    def ids(self) -> tuple[str, ...]:
        """The entries that are shown, in the order in which they are."""
        return tuple(one.id for one in self.looked if one.shown)


class Asked(NamedTuple):
    """For whom memory is looked into: the policy, the task, the text that nearness is measured to, the luck of the attempt.

    `choosing` says whether the world lists actions, `calling` whether it takes tool calls; `measured` attempts are never shown a
    solution of their own task. `count` gives a text's tokens.
    """

    policy: Policy
    task: Task
    query: str
    rng: random.Random
    choosing: bool
    calling: bool
    measured: bool
    count: Callable[[str], int]


def at_start(memory: Memory, asked: Asked) -> Recalled:
    """What is shown before the task."""
    looked = asked.policy.recall.when != "stuck"
    kept, thought = _fitting(_wanted(memory, asked, looked=looked), asked, asked.policy.recall.tokens, as_turns=True)
    demos, context = _shown(kept, asked)
    return Recalled(thought, demos, context, _used(kept), _cost(memory, asked) if looked else Usage())


def at_turn(memory: Memory, asked: Asked, before: Collection[str], tokens: int) -> Recalled:
    """What more is shown at a later turn, as text, within `tokens`: the nearest to what is seen now that were not shown yet."""
    kept, thought = _fitting(_nearest(memory, asked, before), asked, tokens, as_turns=False)
    told = [_told(one) for one in kept]
    context = render("recall", entries=told, ending="Your game goes on:") if told else ""
    return Recalled(thought, (), context, _used(kept), _cost(memory, asked))


class _Candidate(NamedTuple):
    """An entry that was thought of: its group (one for what is shown whole, one for its own, one a kind that was looked up)."""

    group: int
    entry: Entry
    similarity: float | None = None
    beyond: bool = False  # the next nearest after those that are wanted: only to be told of


class _Kept(NamedTuple):
    """An entry that is shown: the attempt it tells of, perhaps shortened by `cut` turns, and its size in tokens."""

    candidate: _Candidate
    lived: Lived | None
    size: int
    cut: int


def _used(kept: Sequence[_Kept]) -> int:
    return sum(one.size for one in kept)


def _cost(memory: Memory, asked: Asked) -> Usage:
    return memory.cost(asked.query) if any(asked.policy.recall.nearest.values()) else Usage()


def _wanted(memory: Memory, asked: Asked, *, looked: bool) -> Iterator[_Candidate]:
    """The entries that the policy wants, the most wanted first."""
    recall, env, as_of, task = asked.policy.recall, asked.task.env, asked.policy.as_of, asked.task.id
    for kind in recall.whole:
        for entry in memory.entries(as_of, kind, env):
            if not _tells(entry, asked):
                yield _Candidate(0, entry)
    for kind, k in recall.own.items():
        held = memory.entries(as_of, kind, env)
        own = [entry for entry in held if entry.task == task and not _tells(entry, asked)][-k:] if k else []
        others = [entry for entry in held if entry.task != task]
        for entry in _drawn(asked, others, len(own)) if recall.shuffled else own:
            yield _Candidate(1, entry)
    if looked:
        yield from _nearest(memory, asked, ())


def _nearest(memory: Memory, asked: Asked, before: Collection[str]) -> Iterator[_Candidate]:
    recall, env, as_of = asked.policy.recall, asked.task.env, asked.policy.as_of

    def skip(entry: Entry) -> bool:
        return entry.id in before or _tells(entry, asked)

    for place, (kind, k) in enumerate(recall.nearest.items(), LOOKED_UP):
        if not k:
            continue
        more = 0 if recall.shuffled else TOLD
        ranked = memory.recall(asked.query, env=env, k=k + more, as_of=as_of, kind=kind, skip=skip, ranking=recall)
        if recall.shuffled:
            taken = {entry.id for entry, _ in ranked}
            others = [one for one in memory.entries(as_of, kind, env) if one.id not in taken and not skip(one)]
            yield from (_Candidate(place, entry) for entry in _drawn(asked, others, k))
        else:
            yield from (_Candidate(place, entry, near, rank >= k) for rank, (entry, near) in enumerate(ranked))


def _tells(entry: Entry, asked: Asked) -> bool:
    """Whether the entry would tell the agent how the very task is solved that it is measured on."""
    return asked.measured and entry.kind in SOLUTIONS and entry.about(asked.task.id)


def _drawn(asked: Asked, others: list[Entry], k: int) -> list[Entry]:
    """A draw that leaves the attempt's luck as it is, so that it acts under the same luck with and without it."""
    rng = random.Random()
    rng.setstate(asked.rng.getstate())
    return rng.sample(others, min(k, len(others)))


def _fitting(
    wanted: Iterator[_Candidate], asked: Asked, tokens: int, *, as_turns: bool
) -> tuple[list[_Kept], tuple[Looked, ...]]:
    """As many of the wanted entries as fit into `tokens`, each text once, in the order in which they are shown; and all of them.

    Of each kind that was looked up the nearest comes last.
    """
    kept: list[_Kept] = []
    out: list[Looked] = []
    texts: dict[str, str] = {}
    room = tokens
    for one in wanted:
        entry = one.entry
        if one.beyond or entry.text in texts:
            why = "less near" if one.beyond else f"says the same as {texts[entry.text]}"
            out.append(Looked(id=entry.id, similarity=one.similarity, why=why))
            continue
        found = _cut_to(one, asked, room, as_turns=as_turns and asked.policy.recall.as_turns)
        if found is None:
            out.append(Looked(id=entry.id, similarity=one.similarity, why=f"does not fit into {room} tokens"))
            continue
        room -= found.size
        texts[entry.text] = entry.id
        kept.append(found)
    if told := [one.candidate.entry.id for one in kept if _tells(one.candidate.entry, asked)]:
        raise AssertionError(f"{asked.task.id} is measured with a solution of its own in view: {told[0]}")
    looked_up = [one for one in reversed(kept) if one.candidate.group >= LOOKED_UP]
    order = [one for one in kept if one.candidate.group < LOOKED_UP] + sorted(looked_up, key=lambda one: one.candidate.group)
    shown = [
        Looked(id=one.candidate.entry.id, similarity=one.candidate.similarity, tokens=one.size, shown=True, cut=one.cut)
        for one in order
    ]
    return order, (*shown, *out)


def _cut_to(one: _Candidate, asked: Asked, room: int, *, as_turns: bool) -> _Kept | None:
    """The entry with the attempt that it tells of shortened as far as `room` tokens ask for; None if it does not fit."""
    lived = one.entry.lived
    if lived is None:
        size = asked.count(quoted(one.entry.text))
        return _Kept(one, None, size, 0) if size <= room else None
    for dropped in range(max(1, len(lived.turns) - 1)):
        shorter = shortened(lived, dropped)
        size = _size(shorter, asked, as_turns=as_turns)
        if size <= room:
            return _Kept(one, shorter, size, dropped)
    return None


def _size(lived: Lived, asked: Asked, *, as_turns: bool) -> int:
    if not as_turns:
        return asked.count(quoted(transcript(lived)))
    return sum(FRAME + asked.count(message.content) for message in _turns(lived, asked))


def _turns(lived: Lived, asked: Asked) -> list[Message]:
    """The attempt as messages up to its last action.

    What that brought was never acted on: the outcome stands for it, but for a tool call, which wants an answer.
    """
    messages = lived_messages(lived, asked.policy.show_actions)
    return messages if asked.calling else messages[:-1]


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


def _shown(kept: Sequence[_Kept], asked: Asked) -> tuple[tuple[Message, ...], str]:
    """The entries as messages, and as the text that stands right before the task."""
    as_turns = asked.policy.recall.as_turns
    demos, said = _as_turns([one for one in kept if one.lived and as_turns], asked)
    texts = [_told(one) for one in kept if not (one.lived and as_turns)]
    told = render("recall", entries=texts, ending="Now your game:") if texts else ""
    if said:
        said = f"{said}\n{told}" if told else f"{said} {render('next', choosing=asked.choosing)}"
    return tuple(demos), said or told


def _told(one: _Kept) -> Entry:
    """The entry with its text as it is shown: perhaps shortened, and nothing in it reads like the house's own words."""
    entry = one.candidate.entry
    return entry.model_copy(update={"text": quoted(transcript(one.lived) if one.cut and one.lived else entry.text)})


def _as_turns(kept: Sequence[_Kept], asked: Asked) -> tuple[list[Message], str]:
    """The attempts as one conversation in which user and agent alternate, and what is said of the last one's outcome."""
    messages: list[Message] = []
    said = ""
    for one in kept:
        assert one.lived
        first, *rest = _turns(one.lived, asked)
        if said:
            first = first.model_copy(update={"content": f"{said} {render('next', choosing=asked.choosing)}\n{first.content}"})
        messages += [first, *rest]
        said = render("outcome", entry=one.candidate.entry, choosing=asked.choosing)
    return messages, said
