"""What an entry has been worth: how often attempts recalled it, how often those succeeded, and when that last happened."""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.records import Entry, Trajectory
from agentevolve.refine.filters import learnable


def counted(entries: Sequence[Entry], attempts: Sequence[Trajectory], round: int) -> list[Entry]:
    """The entries with these attempts added to their counts: `recalled` them, and were `helped` by them, that is solved.

    An attempt at the very task that an entry is about proves nothing and is not counted. An entry whose counts change is another
    one, of this round, so that earlier rounds keep theirs.
    """
    found = learnable(attempts)
    return [_with(one, [attempt for attempt in found if _used(one, attempt)], round) for one in entries]


def helpful(entries: Sequence[Entry], *, enough: int) -> list[Entry]:
    """Those without which the others would not do better, as far as their counts tell.

    An entry that was recalled at least `enough` times is dropped if fewer of the attempts that recalled it were solved than of
    all that recalled some entry.
    """
    recalled, helped = _sum(entries, "recalled"), _sum(entries, "helped")
    mean = helped / recalled if recalled else 0.0
    return [one for one in entries if _sum([one], "recalled") < enough or _sum([one], "helped") >= mean * _sum([one], "recalled")]


def recent(entries: Sequence[Entry], attempts: Sequence[Trajectory], most: int) -> list[Entry]:
    """At most so many: those that an attempt recalled, or that were made, least recently by rounds go first; the older of equals.

    The order stays.
    """
    last = {one.id: one.round for one in entries}
    for attempt in attempts:
        last |= {id: max(last[id], _round(attempt)) for id in attempt.recalled if id in last}
    kept = sorted(range(len(entries)), key=lambda place: (last[entries[place].id], place))[max(0, len(entries) - most) :]
    return [entries[place] for place in sorted(kept)]


def _round(attempt: Trajectory) -> int:
    return int(attempt.phase.split("/")[0])


def _used(entry: Entry, attempt: Trajectory) -> bool:
    return entry.id in attempt.recalled and entry.task != attempt.task.id


def _with(entry: Entry, attempts: Sequence[Trajectory], round: int) -> Entry:
    if not attempts:
        return entry
    new = {"recalled": len(attempts), "helped": sum(one.solved for one in attempts)}
    counts = entry.counts | {name: entry.counts.get(name, 0) + n for name, n in new.items()}
    return entry.model_copy(update={"id": f"{entry.id.split('@')[0]}@{round}", "round": round, "counts": counts})


def _sum(entries: Sequence[Entry], name: str) -> int:
    return sum(one.counts.get(name, 0) for one in entries)
