"""The command `compare`: methods side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from agentevolve.cli.folders import new_folder
from agentevolve.cli.forecast import forecast_error, show_forecast
from agentevolve.cli.options import Changes, Config, RoundsOptions
from agentevolve.cli.show import aside, show
from agentevolve.local.processes import check_alone
from agentevolve.protocols import AgentevolveError
from agentevolve.whole import write_whole

if TYPE_CHECKING:
    from agentevolve.config import Comparison
    from agentevolve.evaluate import Standing


def compare(
    config: Config,
    options: RoundsOptions,
    changes: Changes = None,
    method: Annotated[
        list[str] | None, typer.Option(help="A method to compare besides those of the file: a name or package.module:function.")
    ] = None,
) -> None:
    """Put methods side by side: the same tasks, seeds and budget for each, with control arms; then print who is better.

    With --resume, methods, seeds and task sets may be added.

    \b
    agentevolve compare examples/compare.yaml
    agentevolve compare examples/compare.yaml --method my_package.my_file:my_method
    """
    from agentevolve.config import read_comparison
    from agentevolve.evaluate import board, to_json

    check_alone("compare")
    settings = read_comparison(config, changes or [], method or [])
    if options.resume and options.out is None:
        raise AgentevolveError("--resume needs --out FOLDER, the comparison to go on with")
    place = options.out or new_folder(config.stem)
    if options.dry_run:
        return show_forecast(settings, place, options)
    found = compared(settings, place, options.resume, options.quiet)
    values = {"standings": to_json(found.rows), "cannot_be_concluded": found.caveats}
    sets = dict.fromkeys(row.tasks for row in found.rows)
    show(values, options.as_json, lambda: [board([row for row in found.rows if row.tasks == name], name) for name in sets])
    if not options.as_json:
        print("What cannot be concluded:", *found.caveats, sep="\n- ")
    aside([*forecast_error(place), " ".join(["written:", *map(str, found.files)])])


class Compared(NamedTuple):
    """A comparison's outcome, and the files that say it."""

    rows: list[Standing]
    caveats: list[str]
    files: list[Path]


def compared(config: Comparison, place: Path, resume: bool, quiet: bool) -> Compared:
    """Compare, and write table.md, results.csv, results.json and curves.png into the comparison's folder."""
    from agentevolve.evaluate import caveats, curves, markdown, standings, to_csv, to_json
    from agentevolve.loop.compare import compare

    found = compare(config, place, resume=resume, quiet=quiet)
    rows = standings(found, config.held.samples)
    said = caveats(rows, config.model)
    values = {"config": config.public(), "standings": to_json(rows), "cannot_be_concluded": said}
    texts = {
        "table.md": markdown(rows, said, _made_by(config)),
        "results.csv": to_csv(rows),
        "results.json": json.dumps(values, indent=1, ensure_ascii=False) + "\n",
    }
    for name, text in texts.items():
        write_whole(place / name, text)
    picture = curves(rows, place / "curves.png", unit=next(iter(_budget(config))))
    return Compared(rows, said, [*(place / name for name in texts), picture])


def _budget(config: Comparison) -> dict[str, float]:
    return {name: value for name, value in config.budget.model_dump().items() if value is not None}


def _made_by(config: Comparison) -> str:
    budget = ", ".join(f"{value:,} {name}" for name, value in _budget(config).items())
    return (
        f"Made by `agentevolve compare`: {config.model}, at most {config.rounds} rounds on {config.train.tasks} train tasks "
        f"within {budget} a method and seed; measured on {config.held.tasks} {config.split} tasks, "
        f"{config.held.samples} attempt{'s' * (config.held.samples > 1)} each; seeds {', '.join(map(str, config.seeds))}."
    )
