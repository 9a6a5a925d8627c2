"""What an evolution or a comparison will cost, and how far off that was: what `--dry-run` makes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agentevolve.cli.show import aside, show
from agentevolve.config import Comparison, Config
from agentevolve.protocols import AgentevolveError

if TYPE_CHECKING:
    from agentevolve.cli.options import RoundsOptions
    from agentevolve.loop.forecast import Forecast


def forecast_of(config: Config | Comparison, place: Path, quiet: bool) -> Forecast:
    """What it will cost, from a probe that is kept in `place`, a new or empty folder."""
    from agentevolve.loop.forecast import forecast_comparison, forecast_evolution

    if any(not child.name.startswith(".") for child in (place.iterdir() if place.exists() else ())):
        raise AgentevolveError(f"{place}: not empty; a forecast is made before the run, in the folder that the run will have")
    if isinstance(config, Config):
        return forecast_evolution(config, place, quiet=quiet)
    return forecast_comparison(config, place, quiet=quiet)


def forecast_error(place: Path) -> list[str]:
    """How far off the forecast for the run or comparison at `place` was, if there was one."""
    from agentevolve.loop.forecast import FILE, PROBES, error_of
    from agentevolve.run.folder import JOURNAL, read_run
    from agentevolve.run.shards import SHARDS

    folders = sorted(path.parent for path in place.rglob(JOURNAL) if not {PROBES, SHARDS} & {*path.parts})
    return error_of(place, [read_run(folder) for folder in folders]) if (place / FILE).is_file() else []


def show_forecast(config: Config | Comparison, place: Path, options: RoundsOptions) -> None:
    """Make the forecast and print it."""
    from agentevolve.cli import tables

    found = forecast_of(config, place, options.quiet)
    show(found.model_dump(mode="json"), options.as_json, lambda: tables.forecast(found))
    aside([f"kept: its error is told when the run in {place} is done (--out {place})"])
