"""The command line. A user's mistake is one line on stderr and exit code 2; a spent budget ends a run cleanly with code 3."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from agentevolve.cli import compare, evolve, lists, memory, policy, run
from agentevolve.cli.options import expanded
from agentevolve.protocols import AgentevolveError, BudgetExceeded

app = typer.Typer(invoke_without_command=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
memory_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.add_typer(memory_app, name="memory", help="Look into a memory: a run's folder or a memory folder.")

COMMANDS = (lists.tasks, lists.models, lists.methods, run.run, evolve.evolve, compare.compare, policy.distill, evolve.report)
MEMORY: dict[str, Callable[..., None]] = {
    "list": memory.list_entries,
    "show": memory.show_entry,
    "search": memory.search,
    "stats": memory.stats,
    "rebuild": memory.rebuild,
}
for one in COMMANDS:
    app.command()(expanded(one))
for name, entry in MEMORY.items():
    memory_app.command(name)(entry)


@app.callback()
def about(context: typer.Context) -> None:
    """Agents that get better by themselves: acquire experience, refine it, update memory and weights, evaluate, in rounds.

    \b
    agentevolve evolve examples/quickstart.yaml            see an agent improve, on this machine, without a key
    agentevolve run twc --model local/smollm2-135m         run one policy on one task set
    agentevolve memory list RUN                            see what it remembers
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


@memory_app.callback()
def about_memory(context: typer.Context) -> None:
    """Look into a memory: a run's folder or a memory folder."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> None:
    """The entry point: runs a command and turns a user's mistake into one line."""
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        _fail("stopped; what is done is kept", 130)
    except BudgetExceeded as error:
        _fail(f"stopped: {error}; what is done is kept, go on with a larger limit", 3)
    except AgentevolveError as error:
        _fail(f"error: {error}", 2)
    except Exception as error:  # typer's usage errors: their class is not public, their message is
        if not hasattr(error, "format_message"):
            raise
        _fail(f"error: {error.format_message()} (agentevolve --help tells more)", 2)
    sys.exit(code or 0)


def _fail(line: str, code: int) -> None:
    print(" ".join(line.split()), file=sys.stderr)
    sys.exit(code)
