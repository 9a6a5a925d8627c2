"""A run, or a comparison, in one file: the same pages without a server, a script or a request; and a run's tables as Markdown."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentevolve.evaluate.scoreboard import line
from agentevolve.evaluate.table import grid
from agentevolve.loop.reports import Found
from agentevolve.protocols import AgentevolveError
from agentevolve.view import attempts, shown, templates
from agentevolve.view.attempts import SHOWN
from agentevolve.view.index import ReadIndex, Row
from agentevolve.view.pages import Pages
from agentevolve.view.places import Places

LISTED = 1_000  # attempts of the file; more are counted
LARGEST = 4_000_000  # bytes of attempts' bodies and rows: with all else the file stays under 5 MB
TEXT = 1_500  # characters of a text in a body


def html(place: Path) -> str:
    """The run at `place` as one HTML file: figures, verdicts, costs, policies, memory, and attempts, folded, until it is large.

    Of a comparison: standings, learning curves, costs, what was forgotten and what cannot be concluded.

    Raises AgentevolveError where there is neither, or a link leads out of it.
    """
    pages = Pages(Places(place))
    try:
        names, compared = pages.places.names(), pages.places.comparisons()
        if len(compared) == 1 and pages.places.root in compared.values():
            return _compared(pages, next(iter(compared)))
        if len(names) != 1:
            raise AgentevolveError(f"{place}: {len(names)} runs are below it; name one, or a comparison's folder")
        return _page(pages, next(iter(names)))
    finally:
        pages.places.close()


def _compared(pages: Pages, name: str) -> str:
    found = pages.comparison(name, {})
    return templates.page("compared", found, picture=_picture(pages.curves(name)) if found["curve"] else "", **_style())


def _style() -> dict[str, Any]:
    """The style within the page, and what its policy knows it by."""
    from markupsafe import Markup

    style = (templates.STATIC / "style.css").read_text("utf-8")
    return {"style": Markup(style), "style_hash": base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}


def _picture(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _page(pages: Pages, name: str) -> str:
    index = pages.places.index(name)
    rows, bodies, total = _attempts(index, name)
    run, memory = pages.run(name, {}), pages.memory(name, {})
    return templates.page(
        "file",
        run,
        static=True,
        picture=_picture(pages.curve(name)) if run["curve"] else "",
        adapters=pages.policies(name, {})["adapters"],
        entries={"rows": memory["rows"], "count": memory["count"]},
        rows=rows,
        bodies=bodies,
        total=total,
        **_style(),
    )


def _attempts(index: ReadIndex, name: str) -> tuple[list[dict[str, Any]], dict[int, Any], int]:
    """The attempts that are listed, those measured last first; the bodies there is room for, by number; how many there are."""
    from markupsafe import Markup

    order = "ORDER BY (split = 'train'), round DESC, n"
    found = index.ask(f"SELECT {SHOWN} FROM attempts WHERE standing = 1 {order} LIMIT {LISTED}")
    [[total]] = index.ask("SELECT count(*) FROM attempts WHERE standing = 1")
    room, bodies = LARGEST - 600 * len(found), {}
    template = templates.environment().get_template("body.jinja")
    for row in found:
        body = template.render(row=dict(row), name=name, static=True, **_body(index, row))
        room -= len(body.encode())
        if room < 0:
            break
        bodies[row["n"]] = Markup(body)
    return [dict(row) for row in found], bodies, total


def _body(index: ReadIndex, row: Row) -> dict[str, Any]:
    return shown.replay(attempts.body_of(index, row), 0, TEXT)


def markdown(found: Found) -> str:
    """The tables of a run and what was decided, as Markdown."""
    return "\n".join([*_lines(found), ""])


def _lines(found: Found) -> Iterator[str]:
    yield f"### {line([found.place.name]).strip('| ')}"
    for title, reports in found.tables.items():
        headings, rows = grid(reports)
        yield from ("", line([title]).strip("| "), "", line(headings), line(["---"] * len(headings)))
        yield from (line(row) for row in rows)
    said = "Success in percent and its difference in points, with 95% intervals over tasks; costs are means an attempt."
    yield from ("", said, "")
    yield from (f"- {line([said]).strip('| ')}" for said in found.verdicts)
