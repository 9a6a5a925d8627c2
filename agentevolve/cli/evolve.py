"""The commands `evolve` and `report`: rounds of learning, and what a run's journal says of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentevolve.cli.folders import new_folder
from agentevolve.cli.forecast import forecast_error, show_forecast
from agentevolve.cli.options import Changes, Config, Json, RoundsOptions
from agentevolve.cli.show import aside, show_reports
from agentevolve.local.processes import check_alone
from agentevolve.protocols import AgentevolveError

if TYPE_CHECKING:
    from agentevolve.loop.reports import Found


def evolve(config: Config, options: RoundsOptions, changes: Changes = None) -> None:
    """Acquire, refine, update, evaluate, for as many rounds as the config says; then print the table and draw the picture.

    \b
    agentevolve evolve examples/quickstart.yaml
    agentevolve evolve examples/quickstart.yaml rounds=2 seeds=[1] --out runs/mine
    agentevolve evolve examples/quickstart.yaml --out runs/mine --resume
    """
    from agentevolve.config import read_config
    from agentevolve.doors.trackers import tracked
    from agentevolve.loop.evolve import evolve as evolved

    check_alone("evolve")
    settings = read_config(config, changes or [])
    if options.resume and options.out is None:
        raise AgentevolveError("--resume needs --out RUN, the folder of the run to go on with")
    place = options.out or new_folder(config.stem)
    if options.dry_run:
        return show_forecast(settings, place, options)
    with tracked(settings.track, settings.public()):
        evolved(settings, place, resume=options.resume, quiet=options.quiet)
    report(place, options.as_json)


def report(
    run: Annotated[Path, typer.Argument(help="A run's folder; with --html also a comparison's.")],
    as_json: Json = False,
    html: Annotated[Path | None, typer.Option(help="Write all of it, its attempts too, into this one file to look at.")] = None,
    md: Annotated[bool, typer.Option("--md", help="Print the tables as Markdown, for a pull request.")] = False,
) -> None:
    """Print a run's tables (all seeds pooled) and draw its learning curve into the run's folder."""
    from agentevolve.loop.course import course
    from agentevolve.loop.reports import reports
    from agentevolve.run.folder import read_run, seeds

    if html:
        return _write_html(run, html)
    runs = [read_run(folder) for folder in seeds(run)]
    found = reports(run, runs)
    if md:
        from agentevolve.view.file import markdown

        print(markdown(found), end="")
        return
    stages = course(runs) if len(found.rounds) > 1 else []
    show_reports(found.tables, as_json, stages)
    for line in found.verdicts:
        print(line, file=sys.stderr if as_json else sys.stdout)
    aside([*forecast_error(run), _picture(found)])


def _write_html(run: Path, path: Path) -> None:
    from agentevolve.view.file import html
    from agentevolve.whole import write_whole

    print(write_whole(path, html(run)))


def _picture(found: Found) -> str:
    """Where the picture is, or why there is none: the table does not hang on it."""
    try:
        return f"picture: {found.draw(found.place / 'report.png')}"
    except AgentevolveError as error:
        return f"no picture: {error}"
