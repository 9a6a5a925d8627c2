"""The command `view`: look at runs in a browser, or in the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from agentevolve.cli.listen import listening
from agentevolve.protocols import AgentevolveError


def view(
    folder: Annotated[Path, typer.Argument(help="A run's, comparison's or memory's folder, or one with such below it.")] = Path(
        "runs"
    ),
    host: Annotated[str, typer.Option(help="The address, or name, that is opened in the browser.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 8265,
    token: Annotated[str, typer.Option(help="What whoever asks must show; needed where others can reach it.")] = "",
    edit: Annotated[
        bool, typer.Option("--edit", help="Let entries of memories be quarantined, retired, restored and annotated.")
    ] = False,
    tui: Annotated[
        bool, typer.Option("--tui", help="Look in the terminal: nothing is served, and nothing can be edited.")
    ] = False,
) -> None:
    """Look at runs in a browser: whether it gets better, what happened, what it remembers and why. Nothing is changed."""
    if not folder.is_dir():
        raise AgentevolveError(f"{folder}: not a folder")
    if tui:
        from agentevolve.view.terminal import show

        show(folder)
        return
    from agentevolve.view.security import hosts
    from agentevolve.view.server import serve

    hosts(host, port, token)  # nothing listens where it should not
    with listening(host, port) as door:
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/{'?token=…' if token else ''}"
        print(f"{address} (Ctrl-C ends it)", file=sys.stderr)
        serve(folder, host, door, token, edit=edit)
