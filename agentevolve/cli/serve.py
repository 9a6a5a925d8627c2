"""The command `serve`: a policy as an address that other people's harnesses call."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentevolve.cli.folders import new_folder
from agentevolve.cli.listen import listening
from agentevolve.cli.options import LimitOptions, PolicyOptions, RunOptions
from agentevolve.cli.run import policy, prices
from agentevolve.cli.show import aside
from agentevolve.local.processes import check_alone
from agentevolve.protocols import AgentevolveError

if TYPE_CHECKING:
    from agentevolve.policy import Policy

KEY = "AGENTEVOLVE_SERVE_KEY"


def serve(
    acting: PolicyOptions,
    limits: LimitOptions,
    options: RunOptions,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 8399,
    host: Annotated[str, typer.Option(help="The address to listen on; any but loopback can be reached by others.")] = "127.0.0.1",
    env: Annotated[
        str, typer.Option(help="The world that the conversations are about (default: that of the memory's entries, else served).")
    ] = "",
    workers: Annotated[int, typer.Option(min=1, help="Conversations answered side by side.")] = 4,
) -> None:
    """Serve a policy behind OpenAI's chat route, for any harness; each conversation becomes an attempt that can be learnt from.

    \b
    agentevolve serve --model local/smollm2-135m --adapter runs/mine/adapters/round-1 --memory runs/mine --out runs/served
    curl … http://127.0.0.1:8399/v1/reward -d '{"task": "NAME", "reward": 1}'     # how it ended
    agentevolve distill runs/served --out adapter                                 # learn from it
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise AgentevolveError('serving a policy needs the extra "serve": pip install "agentevolve[serve]"') from None
    from agentevolve.act.attempt import ORACLE
    from agentevolve.doors.hosts import LOOPBACK, known_hosts
    from agentevolve.doors.serve import application, server
    from agentevolve.doors.talks import Talks
    from agentevolve.run.folder import Run

    check_alone("serve")
    if acting.model in ("random", ORACLE):
        raise AgentevolveError(f"{acting.model} answers nobody: it is no model of language")
    wanted, place = policy(acting, limits.max_usd), options.out or new_folder("served")
    key = os.environ.get(KEY) or secrets.token_urlsafe(24)
    door = listening(host, port)
    run = Run(place, workers=workers, quiet=options.quiet)
    try:
        run.about("served", {"model": wanted.model})
        run.prices = prices(acting)
        run.limit(limits.max_tokens, limits.max_usd)
        app = application(Talks(wanted, run, env or _world(wanted)), key, known_hosts({host, *LOOPBACK}, port))
        said = "" if os.environ.get(KEY) else f"; key: {key}"
        aside([f"serving {wanted.model} at http://{host}:{port}/v1{said}", f"run: {place}"])
        server(app).run(sockets=[door])
    finally:
        door.close()
        run.close()


def _world(wanted: Policy) -> str:
    """The world that most entries of the policy's memory are about."""
    from agentevolve.memory import read_entries

    if not wanted.memory:
        return "served"
    worlds = Counter(entry.env for entry in read_entries(Path(wanted.memory)))
    if not worlds:
        raise AgentevolveError(f"{wanted.memory}: an empty memory; serve without it")
    return worlds.most_common(1)[0][0]
