"""What the page of a comparison says, as JSON values: the terminal's tables, taken apart by what they tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from agentevolve.config import Comparison, read_comparison
from agentevolve.evaluate import Standing, caveats, to_json
from agentevolve.evaluate.scoreboard import cells, columns
from agentevolve.loop.compare import CONFIG, CONTROLS
from agentevolve.run.folder import written
from agentevolve.view.comparisons import Compared, Part, unit, wanted
from agentevolve.view.places import runs_of, state

COSTS = ("turns", "tokens", "attempts", "learning tokens", "USD", "seconds", "rounds")
MEMORY = ("vs shuffled memory", "empty memory vs no learning")
FORGOTTEN = ("guard",)
TABLES = {"costs": COSTS, "memory": MEMORY, "forgotten": FORGOTTEN}


def short(place: Path) -> dict[str, Any]:
    """A comparison in the list of runs. Raises AgentevolveError where it cannot be read."""
    config = read_comparison(place / CONFIG)
    every = len(config.tasks) * len(config.seeds) * (1 + len(config.methods))
    begun = sum(wanted(run, config) for run in runs_of(place))
    return {"state": state(place), "changed": _changed(place), "asked": _asked(config), "begun": begun, "all": every}


def page(found: Compared, place: Path, name_of: Callable[[Path], str]) -> dict[str, Any]:
    """All of a comparison; `name_of` says by which name a run's own page goes."""
    config = found.config
    sets = list(dict.fromkeys(part.learnt.tasks for part in found.parts))
    methods = any(row.difference for row in found.rows)
    return {
        "state": state(place),
        "changed": _changed(place),
        "asked": _asked(config),
        "settings": config.public(),
        "so_far": list(_so_far(found)),
        "sets": [{"tasks": tasks, **_tables([row for row in found.rows if row.tasks == tasks])} for tasks in sets],
        "standings": to_json(found.rows),
        "cannot_be_concluded": caveats(found.rows, config.model) if methods else [],
        "curve": methods,
        "unit": unit(config),
        "runs": _runs(found, name_of),
    }


def _tables(rows: Sequence[Standing]) -> dict[str, Any]:
    """The columns of the terminal's files: how the methods stand, and apart from it what TABLES names."""
    shown = columns(rows) if rows else []
    apart = [name for names in TABLES.values() for name in names]
    main = [name for name in shown if name not in apart]
    learnt = [row for row in rows if row.difference]
    parts = {title: _table(learnt, ["method", *(one for one in shown if one in names)]) for title, names in TABLES.items()}
    return {"methods": [row.method for row in rows], "standings": _table(rows, main), **parts}


def of_method(found: Compared, method: str) -> list[dict[str, Any]]:
    """How one method stands at each task set: its figures under their headings, and its learning curve."""
    every = [row for row in found.rows if row.method == method]
    shown = [name for name in columns(found.rows) if name != "method"] if every else []
    return [
        {
            "tasks": row.tasks,
            "figures": [list(pair) for pair in zip(shown, cells(row, shown), strict=True)],
            "curve": [point.model_dump() for point in row.curve],
        }
        for row in every
    ]


def _table(rows: Sequence[Standing], shown: Sequence[str]) -> dict[str, Any]:
    return {"headings": list(shown), "rows": [cells(row, shown) for row in rows] if len(shown) > 1 else []}


def _so_far(found: Compared) -> Iterator[str]:
    """What is not through yet, as sentences; none when all is."""
    config = found.config
    begun = list(dict.fromkeys(part.learnt.tasks for part in found.parts))
    for tasks in begun:
        through = [part.learnt for part in found.through if part.learnt.tasks == tasks]
        seeds, methods = len({one.seed for one in through}), len({one.method for one in through} - {CONTROLS})
        if (seeds, methods) != (len(config.seeds), len(config.methods)):
            yield (
                f"So far the standings at {tasks} are of {methods} of the {len(config.methods)} methods "
                f"with {seeds} of the {len(config.seeds)} seeds: the others are not through."
            )
    if len(begun) < len(config.tasks):
        yield f"{len(begun)} of the {len(config.tasks)} task sets are begun."


def _runs(found: Compared, name_of: Callable[[Path], str]) -> list[dict[str, Any]]:
    """The runs of each method at each task set, by seed, with whether they are through."""
    through = {part.place for part in found.through}
    rows: dict[tuple[str, str], list[Part]] = {}
    for part in sorted(found.parts, key=lambda part: part.learnt.seed):
        rows.setdefault((part.learnt.tasks, part.learnt.method), []).append(part)
    return [
        {"tasks": tasks, "method": method, "seeds": [_run(part, part.place in through, name_of) for part in parts]}
        for (tasks, method), parts in sorted(rows.items(), key=lambda one: (one[0][0], one[0][1] != CONTROLS, one[0][1]))
    ]


def _run(part: Part, counted: bool, name_of: Callable[[Path], str]) -> dict[str, Any]:
    return {
        "name": name_of(part.place),
        "seed": part.learnt.seed,
        "rounds": len(part.learnt.rounds),
        "counted": counted,
        "state": state(part.place),
    }


def _asked(config: Comparison) -> dict[str, Any]:
    wanted = {"tasks": config.tasks, "model": config.model, "methods": [one.name for one in config.methods]}
    return {**wanted, "seeds": config.seeds, "rounds": config.rounds, "guard": config.guard}


def _changed(place: Path) -> float:
    """When it was last written, in seconds since 1970."""
    return max([(place / CONFIG).stat().st_mtime, *map(written, runs_of(place))])
