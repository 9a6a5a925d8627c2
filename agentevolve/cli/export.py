"""The commands `export` and `import`: a run's attempts for others' tools, and theirs as a run's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentevolve.cli.folders import named_folder
from agentevolve.cli.options import RunFolder


def export(
    folder: RunFolder,
    out: Annotated[Path, typer.Option(parser=named_folder, metavar="<path>", help="The export's new folder.")],
    form: Annotated[str, typer.Option("--as", help="trl, trl-preference, atif, inspect or hf.")],
    split: Annotated[list[str] | None, typer.Option(help="Only these splits (default for trl: train; else every one).")] = None,
    solved: Annotated[bool, typer.Option("--solved", help="Only solved attempts.")] = False,
    round: Annotated[int | None, typer.Option(help="Only attempts of this round (0: before the first).")] = None,
    env: Annotated[str | None, typer.Option(help="Only attempts in this environment.")] = None,
) -> None:
    """Write a run's attempts for other tools: rows for TRL, trajectories for Harbor (ATIF), logs for Inspect, a dataset."""
    from agentevolve.doors.exports import export, wanted

    count = export(folder, out, form, wanted(split or [], solved=solved, round=round, env=env))
    print(f"{out}: {count} attempts")


def import_attempts(
    files: Annotated[list[Path], typer.Argument(help="JSONL files of TRL's rows, or one JSON file a trajectory of ATIF.")],
    out: Annotated[Path, typer.Option(parser=named_folder, metavar="<path>", help="The folder of a run of imported attempts.")],
    form: Annotated[str, typer.Option("--as", help="trl or atif.")],
) -> None:
    """Take in attempts that were made elsewhere, as a run's that `distill` learns from."""
    from agentevolve.doors.imports import take_in

    found = take_in(files, form, out)
    print(f"{out}: {found.added} attempts added, {found.solved} of them solved, {found.known} known already")
