"""The pages' templates, with what they all need: foreign text made safe to look at, addresses, numbers for reading.

Everything that a template inserts is escaped, and what cannot be seen in it is named, whether or not the template thought of it.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from agentevolve.view.text import visible

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


STATIC = Path(__file__).parent / "static"  # the style and the scripts


@functools.cache
def environment() -> Environment:
    """The templates in pages/."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("agentevolve.view", "pages")
    made = Environment(
        loader=loader, undefined=StrictUndefined, autoescape=True, finalize=_final, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"foreign": foreign, "count": count, "share": share, "seconds": seconds, "when": when, "day": day}
    made.globals |= {"link": link, "compared": compared, "anchor": anchor}
    return made


def prepare() -> None:
    """Read and translate all templates, so that the first page need not."""
    made = environment()
    for name in made.list_templates():
        made.get_template(name)


def foreign(text: object) -> Markup:
    """Words from outside, so that they turn nothing around them."""
    from markupsafe import Markup, escape

    return Markup("<bdi>") + escape(visible(str(text))) + Markup("</bdi>")


def link(name: str, page: str = "", /, **query: object) -> str:
    """The address of a page of the run of that name."""
    path = f"/runs/{quote(name, safe='')}" + (f"/{page}" if page else "")
    kept = {key: value for key, value in query.items() if value not in (None, "")}
    return path + (f"?{urlencode(kept, errors='replace')}" if kept else "")


def compared(name: str, page: str = "") -> str:
    """The address of the comparison of that name, or of a picture of it."""
    return f"/comparisons/{quote(name, safe='')}" + (f"/{page}" if page else "")


def anchor(n: int) -> str:
    """The name of an attempt's place in a file."""
    return f"a{n}"


def count(value: float) -> str:
    """A number for reading."""
    return f"{value:,.0f}"


def share(part: float, whole: float) -> str:
    """A share in percent."""
    return f"{100 * part / whole:.0f} %" if whole else "–"


def seconds(value: float) -> str:
    """A time for reading."""
    if value < 100:
        return f"{value:.1f} s"
    return f"{value / 60:,.0f} min" if value < 6_000 else f"{value / 3_600:,.1f} h"


def when(value: float) -> str:
    """A moment, given in seconds since 1970, as HTML's `datetime` has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(value))


def day(value: float) -> str:
    """A moment for reading."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(value))


def page(template: str, values: dict[str, Any], **more: Any) -> str:
    """The page of that template with its values."""
    return environment().get_template(f"{template}.jinja").render(**values, **more)


def _final(value: Any) -> Any:
    """What a template inserts: a text, but for one that the house has made, with what cannot be seen in it named."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return visible(value)
    return "–" if value is None else value
