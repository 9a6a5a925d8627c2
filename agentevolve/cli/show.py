"""Printing: results on stdout, as JSON or as tables; what is said beside them on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

BY_ROUND = "in place by round"

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from agentevolve.loop.course import Stage
    from agentevolve.records import Report


def show(values: Any, as_json: bool, tables: Callable[[], Sequence[Table | Text | str]]) -> None:
    """Print `values` as JSON, or the tables that the function `tables` makes."""
    if as_json:
        ascii = "utf" not in (sys.stdout.encoding or "").lower()  # else what stdout cannot say would be escaped as no JSON is
        print(json.dumps(values, indent=1, ensure_ascii=ascii))
        return
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=160)
    for one in tables():
        console.print(one)


def show_reports(reports: dict[str, list[Report]], as_json: bool, stages: Sequence[Stage] = ()) -> None:
    """Print a table for each name, and one of what was in place after each round, if there are several."""
    from agentevolve.cli import tables
    from agentevolve.evaluate import table, to_json

    values = {name: to_json(found) for name, found in reports.items()} | ({BY_ROUND: to_json(stages)} if stages else {})
    course = tables.course(stages, BY_ROUND) if stages else []
    show(values, as_json, lambda: [*(table(found, name) for name, found in reports.items()), *course])


def aside(lines: Sequence[str]) -> None:
    """Print lines beside the result."""
    for line in lines:
        print(line, file=sys.stderr)
