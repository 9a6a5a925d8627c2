"""The command line. A user's mistake is one line on stderr and exit code 2; a spent budget ends a run cleanly with code 3."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable
from io import TextIOWrapper

import typer

from agentevolve.cli import compare, evolve, export, lists, memory, policy, run, serve, view
from agentevolve.cli.options import expanded
from agentevolve.doors.traces import start_when_asked
from agentevolve.given import SHOWN, cut
from agentevolve.protocols import AgentevolveError, BudgetExceeded
from agentevolve.run.stopping import ended_by_signals

LONGEST = 1_000  # characters of an error; the names of all task sets are half of that

app = typer.Typer(invoke_without_command=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

COMMANDS: dict[str, Callable[..., None]] = {
    "tasks": lists.tasks,
    "models": lists.models,
    "methods": lists.methods,
    "run": run.run,
    "evolve": evolve.evolve,
    "compare": compare.compare,
    "distill": policy.distill,
    "report": evolve.report,
    "view": view.view,
    "export": export.export,
    "import": export.import_attempts,
    "serve": serve.serve,
}
MEMORY: dict[str, Callable[..., None]] = {
    "list": memory.list_entries,
    "show": memory.show_entry,
    "search": memory.search,
    "why": memory.why,
    "trace": memory.trace,
    "diff": memory.diff,
    "curate": memory.curate,
    "forget": memory.forget,
    "export": memory.export,
    "import": memory.import_entries,
    "audit": memory.audit,
    "serve": memory.serve,
    "stats": memory.stats,
    "rebuild": memory.rebuild,
}
POLICY: dict[str, Callable[..., None]] = {
    "list": policy.list_policies,
    "show": policy.show_policy,
    "diff": policy.diff,
    "rollback": policy.rollback,
    "export": policy.export_policy,
    "import": policy.import_policy,
}
GROUPS = {
    "memory": ("Look into a memory: a run's folder or a memory folder.", MEMORY),
    "policy": ("What a run has learnt in weights, and what is in place.", POLICY),
}


def told(context: typer.Context) -> None:
    """A command alone, without one of its own: what there is."""
    if context.invoked_subcommand is None:
        print(context.get_help())


for name, one in COMMANDS.items():
    app.command(name)(expanded(one))
for group, (help, entries) in GROUPS.items():
    group_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None, callback=told)
    app.add_typer(group_app, name=group, help=help)
    for name, entry in entries.items():
        group_app.command(name)(entry)


@app.callback()
def about(context: typer.Context) -> None:
    """Agents that get better by themselves: acquire experience, refine it, update memory and weights, evaluate, in rounds.

    \b
    agentevolve evolve examples/quickstart.yaml            see an agent improve, on this machine, without a key
    agentevolve run twc --model local/smollm2-135m         run one policy on one task set
    agentevolve memory list RUN                            see what it remembers
    """
    told(context)


def main() -> None:
    """The entry point: runs a command and turns a user's mistake, or what this machine refuses, into one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a half surrogate, or a sign that an ASCII terminal has not
    start_when_asked()
    try:
        with ended_by_signals():
            code = app(standalone_mode=False)
        sys.stdout.flush()
    except (typer.Abort, KeyboardInterrupt):
        _fail("stopped; what is done is kept", 130)
    except BudgetExceeded as error:
        _fail(f"stopped: {error}; what is done is kept, go on with a larger limit", 3)
    except AgentevolveError as error:
        _fail(f"error: {error}", 2)
    except BrokenPipeError:  # who reads has seen enough
        _fail("", 1)
    except OSError as error:
        if error.errno is None:
            raise
        _fail(f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror}", 2)
    except (MemoryError, RecursionError) as error:
        _fail(f"error: this machine has not enough room for it ({type(error).__name__})", 2)
    except Exception as error:  # typer's usage errors: their class is not public, their message is
        if not hasattr(error, "format_message"):
            raise
        _fail(f"error: {error.format_message()} (agentevolve --help tells more)", 2)
    sys.exit(code or 0)


def _fail(line: str, code: int) -> None:
    """End with one line. Of what was given it repeats no more than the start, whoever worded it."""
    for word in (word for word in sys.argv[1:] if len(word) > SHOWN):
        line = line.replace(word, cut(word))
    line = re.sub(rf"\S{{{SHOWN + 1},}}", lambda found: cut(found[0]), " ".join(line.split()))
    if line:
        print(cut(line, LONGEST), file=sys.stderr)
    _leave_stdout()
    sys.exit(code)


def _leave_stdout() -> None:
    """Drop what stdout cannot take any more (a closed pipe, a full disk): at the end it would be tried again, and traced."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
