"""A run's attempts in the forms that others' tools open: a small file for each form, one contract.

A form is a function `(attempts, origin) -> Files`: what it makes of them, as the names and contents of the files of one new
folder. It imports nothing of the tool that it writes for. What it holds was redacted, and every text in it is whole Unicode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from agentevolve.doors.exports import atif, hf, inspect, trl
from agentevolve.doors.exports.chosen import Files, Origin, Wanted, chosen, origin, wanted
from agentevolve.given import shown
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Split, Trajectory
from agentevolve.whole import write_folder

__all__ = ["FORMS", "Wanted", "export", "wanted"]


class Form(NamedTuple):
    """How attempts are written, the splits that are meant when none is named (none: every one), whether only solved ones are."""

    write: Callable[[Sequence[Trajectory], Origin], Files]
    splits: tuple[Split, ...] = ()
    solved: bool = False


FORMS: dict[str, Form] = {
    "trl": Form(trl.actions, ("train",), solved=True),  # rows to train on: held-out tasks only for who names them
    "trl-preference": Form(trl.preferred, ("train",)),
    "atif": Form(atif.trajectories),
    "inspect": Form(inspect.logs),
    "hf": Form(hf.dataset),
}


def export(place: Path, out: Path, form: str, asked: Wanted) -> int:
    """Write the attempts of the run at `place` that are asked for into the new folder `out`; how many attempts that were.

    Raises AgentevolveError, one line and nothing written, for an unknown form, a folder that is there, or no such attempt.
    """
    if form not in FORMS:
        raise AgentevolveError(f"--as: {shown(form)} is not known; known: {', '.join(FORMS)}")
    if out.exists():
        raise AgentevolveError(f"{out}: exists already; name a new folder with --out")
    made = FORMS[form]
    meant = {"splits": asked.splits or made.splits, "solved": asked.solved or made.solved}
    found = chosen(place, asked.model_copy(update=meant))
    write_folder(out, made.write(found, origin(place)))
    return len(found)
