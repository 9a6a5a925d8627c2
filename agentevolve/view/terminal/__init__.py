"""The inspector in a terminal: runs, attempts turn by turn and memory, by the browser's keys and from the same pages.

    from agentevolve.view.terminal import show
    show(Path("runs"))

Nothing is served and nothing is written but the read index. Textual is asked for here alone.
"""

from __future__ import annotations

from pathlib import Path

from agentevolve.protocols import AgentevolveError
from agentevolve.view.pages import Pages
from agentevolve.view.places import Places


def show(place: Path) -> None:
    """Show the runs at or below `place` until the user leaves.

    Raises AgentevolveError when there is no run, or when the extra "view" is not installed.
    """
    try:
        import textual  # noqa: F401
    except ImportError:
        raise AgentevolveError('looking at runs needs the extra "view": pip install "agentevolve[view]"') from None
    from agentevolve.view.terminal.app import Inspector

    places = Places(place)
    try:
        Inspector(Pages(places)).run()
    finally:
        places.close()
