"""Forgetting: an attempt or an entry, and all that was derived from it, leaves every file of a run.

What remains is a tombstone without content: that there was an attempt, what it cost and came to, so that figures stay; that there
was an entry, so that it does not come back. Weights cannot unlearn: the adapters that learnt from it are named.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from agentevolve.given import shown
from agentevolve.local.adapter import ROWS, adapters_of, read_rows, rewrite_rows
from agentevolve.memory.folder import INDEX
from agentevolve.memory.folder import JOURNAL as ENTRIES
from agentevolve.memory.index import remove_index
from agentevolve.memory.provenance import holds, line_of, vouched_line, vouches
from agentevolve.memory.seals import CLOSED
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry, Example, Outcome, Record, Trajectory
from agentevolve.run.checkpoint import CHECKPOINT
from agentevolve.run.folder import JOURNAL, VIEW, Run
from agentevolve.run.journal import Journal
from agentevolve.run.lock import lock
from agentevolve.run.shards import SHARDS, take_in_all

ENDS = ("", "-wal", "-shm")  # of the files of one SQLite database
SHORTEST = 12  # characters from which a text is looked for wherever it may have been repeated


class Forgotten(Record):
    """What was forgotten in a run: attempts, entries, answers, training rows; and the adapters that learnt from it."""

    run: str
    attempts: tuple[str, ...]
    entries: tuple[str, ...]
    answers: int
    rows: int
    adapters: tuple[str, ...]


def forget(place: Path, *, id: str = "", task: str = "", before: int | None = None) -> list[Forgotten]:
    """Forget, in every run at or below `place`: the attempt or entry `id`, all about `task`, or all of rounds before one.

    Raises AgentevolveError where there is nothing of the kind, or a run is in use; then nothing is changed there.
    """
    folders = sorted(path.parent for path in place.rglob(JOURNAL) if SHARDS not in path.parts)
    if not folders:
        raise AgentevolveError(f"{place}: not a run: there is no {JOURNAL} in it or below")
    found = [_forget(folder, id, task, before) for folder in folders]
    if not any(one.attempts or one.entries for one in found):
        what = (
            f"attempt or entry {shown(id)}"
            if id
            else f"attempt or entry about {shown(task)}"
            if task
            else f"round before {before}"
        )
        raise AgentevolveError(f"{place}: there is no {what}; nothing was changed")
    return [one for one in found if one.attempts or one.entries]


def _forget(folder: Path, id: str, task: str, before: int | None) -> Forgotten:
    """In an order that lets the same command end what a killed one began: what names the rest goes last."""
    run, memory = Run(folder, quiet=True), folder / "memory"
    try:
        take_in_all(run)
        with lock(memory) if memory.is_dir() else contextlib.nullcontext():
            lines = Journal(memory / ENTRIES).read() if memory.is_dir() else []
            entries = [Entry.model_validate(line["entry"]) for line in lines if "entry" in line]
            meant = _Meant(id, task, before)
            attempts = {one.id for one in run.outcomes_of(meant.phase, lost=True) if meant.attempt(one)}
            gone = {one.id: one for one in entries if attempts & set(one.sources) or meant.entry(one)}
            said = _texts(run, attempts, gone)
            sources = attempts or {source for one in gone.values() for source in one.sources}
            rows, adapters = _out_of_rows(folder, attempts, sources, said)
            answers = _out_of_journal(run, attempts, set(gone), said) if attempts or gone else 0
            _out_of_derived(folder)
            if gone:
                _out_of_memory(memory, lines, set(gone))
    finally:
        run.close()
    return Forgotten(
        run=str(folder),
        attempts=tuple(sorted(attempts)),
        entries=tuple(sorted(gone)),
        answers=answers,
        rows=rows,
        adapters=tuple(adapters),
    )


class _Meant(NamedTuple):
    """What is to be forgotten: an id, all about a task, or all of the rounds before one."""

    id: str
    task: str
    before: int | None

    def attempt(self, one: Outcome) -> bool:
        return self._early(one.phase) or one.id == self.id or one.task.id == self.task

    def phase(self, name: str) -> bool:
        """Whether attempts of that phase may be meant."""
        return bool(self.id or self.task) or self._early(name)

    def _early(self, phase: str) -> bool:
        number = phase.partition("/")[0]
        return self.before is not None and number.isdecimal() and int(number) < self.before

    def entry(self, one: Entry) -> bool:
        early = self.before is not None and one.round < self.before
        return early or one.id == self.id or (bool(self.task) and one.about(self.task))


def _texts(run: Run, attempts: set[str], gone: dict[str, Entry]) -> set[str]:
    """What was said and seen in what is forgotten, and nowhere else: it may have been repeated."""
    every = run.attempts()
    said = {text for id in attempts for text in _of_attempt(every[id])} | {one.text for one in gone.values()}
    said |= {text for one in gone.values() if one.lived for turn in one.lived.turns for text in (turn.action, turn.observation)}
    said = {text for text in said if len(text) >= SHORTEST}
    for id, one in every.items() if said else ():
        if id not in attempts:
            said.difference_update(_of_attempt(one))
    return said


def _of_attempt(one: Trajectory) -> Iterable[str]:
    yield from (one.prompt, one.hint)
    for turn in one.turns:
        yield from (turn.action, turn.observation, turn.thinking)


def _out_of_journal(run: Run, attempts: set[str], entries: set[str], said: set[str]) -> int:
    """Rewrite the run's journal; how many answers of models were emptied."""
    emptied = 0

    def change(line: dict[str, Any]) -> dict[str, Any]:
        nonlocal emptied
        new = _without(line, attempts, entries, said)
        emptied += new is not line and line["kind"] == "fact"
        return new

    run.journal.rewrite(change)
    return emptied


def _out_of_derived(folder: Path) -> None:
    """Delete what was counted of the run, and what the inspector has made of it, its memory, or its seeds together."""
    views = [place / f"{VIEW}{end}" for place in (folder, folder / "memory", folder.parent) for end in ENDS]
    for file in [*folder.glob(f"{CHECKPOINT}*"), *views]:
        file.unlink(missing_ok=True)


def _without(line: dict[str, Any], attempts: set[str], entries: set[str], said: set[str]) -> dict[str, Any]:
    """The journal's line without what is forgotten; the line itself where nothing of it is in there."""
    data = line.get("data")
    if line["kind"] == "trajectory":
        one = Trajectory.model_validate(data)
        if one.id in attempts:  # also one that is forgotten already, by a command that was killed
            return line | {"data": _tombstone(one).model_dump(mode="json")}
        if entries & set(one.recalled):
            return line | {"data": one.bare().model_dump(mode="json")}
    elif line["kind"] == "fact" and isinstance(data, dict) and (text := data.get("text")):
        named = any(id in line["name"] for id in attempts)
        if named or any(part in text for part in said):
            return line | {"data": data | {"text": ""}}
    return line


def _tombstone(one: Trajectory) -> Trajectory:
    """The attempt without its content: what it cost and came to."""
    turns = tuple(
        turn.model_copy(update={"action": "", "thinking": "", "observation": "", "actions": (), "context": "", "info": {}})
        for turn in one.turns
    )
    empty: dict[str, Any] = {"system": "", "prompt": "", "actions": (), "tools": (), "demos": (), "context": "", "hint": ""}
    return one.model_copy(update={**empty, "error": one.error and "forgotten", "turns": turns, "forgotten": True})


def _out_of_memory(memory: Path, lines: list[dict[str, Any]], gone: set[str]) -> None:
    """Delete the memory's index, which is built anew when it is next needed, and rewrite its journal with tombstones."""
    remove_index(memory / INDEX)
    (memory / CLOSED).unlink(missing_ok=True)
    heirs: dict[str, str] = {}  # who says the same as one that is gone takes its place
    for line in lines:
        if line["op"] == "again" and line["id"] in gone and line["entry"]["id"] not in gone and holds(line):
            heirs.setdefault(line["id"], line["entry"]["id"])
    kept, stances = [], []
    for line in lines:
        if line["op"] == "worth":
            line = line | {"gains": {id: gain for id, gain in line["gains"].items() if id not in gone}}
        if (
            line["op"] in ("retire", "quarantine", "release")
            and line["id"] in heirs
            and (vouches(line) or line["op"] != "release")
        ):
            # who takes its place is recalled no more than it was; why may have been said in its words
            stances.append(vouched_line({"op": line["op"], "id": heirs[line["id"]], "round": line["round"], "why": ""}))
        id = line["entry"]["id"] if "entry" in line else line.get("id", "")
        if id in gone:
            continue
        if line["op"] == "again" and line["id"] in heirs and holds(line):
            heir = heirs[line["id"]]
            line = line_of(Entry.model_validate(line["entry"]), "" if heir == id else heir)
        kept.append(line)
    tombs = [{"op": "forget", "id": id} for id in sorted(gone)]
    Journal(memory / ENTRIES).rewrite([*tombs, *kept, *stances])


def _out_of_rows(folder: Path, attempts: set[str], sources: set[str], said: set[str]) -> tuple[int, list[str]]:
    """Take the rows of the attempts, and those that repeat what is forgotten, out of what the adapters keep.

    Returns how many, and which adapters learnt from them or from the `sources`.
    """
    count, learnt = 0, []
    for path, info in adapters_of(folder):
        rows = read_rows(path)
        kept = [row for row in rows if not attempts & set(row.sources) and not _repeats(row, said)]
        if len(kept) < len(rows) or ROWS not in info.files:
            rewrite_rows(path, kept)
        if len(kept) < len(rows) or sources & set(info.sources):
            count += len(rows) - len(kept)
            learnt.append(path.name)
    return count, learnt


def _repeats(row: Example, said: set[str]) -> bool:
    texts = [message.content for message in (*row.prompt, *row.completion, *(row.rejected or ()))]
    return any(text in shown for shown in texts for text in said)
