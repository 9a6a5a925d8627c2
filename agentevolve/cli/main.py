"""The command line. A user's mistake is one line on stderr and exit code 2; a spent budget ends a run cleanly with code 3."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentevolve.protocols import AgentevolveError, BudgetExceeded

if TYPE_CHECKING:
    from rich.table import Table

    from agentevolve.loop.forecast import Forecast

app = typer.Typer(invoke_without_command=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
memory_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.add_typer(memory_app, name="memory", help="Look into a memory: a run's folder or a memory folder.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only forecast attempts, tokens, dollars and time, from a probe on three train tasks.")
]


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


@app.command()
def tasks(
    name: Annotated[str | None, typer.Argument(help="A task set's name or YAML file.")] = None, as_json: Json = False
) -> None:
    """List the task sets, or show one: its environment, splits, settings, and what random and oracle reach."""
    from agentevolve.cli import tables as listing
    from agentevolve.load import load_task_set, task_sets

    chosen = [load_task_set(name)] if name else list(task_sets().values())
    _show([one.model_dump(mode="json") for one in chosen], as_json, lambda: listing.task_sets(chosen, detailed=bool(name)))


@app.command()
def models(as_json: Json = False) -> None:
    """List the local models that need no key, and how to name any other."""
    from agentevolve.cli import tables as listing
    from agentevolve.local import catalog

    rows = [{"model": f"local/{name}", "cached": catalog.is_cached(name)} for name in catalog.names()]
    _show(rows, as_json, lambda: listing.models(rows))


@app.command()
def methods(name: Annotated[str | None, typer.Argument(help="A method's name.")] = None, as_json: Json = False) -> None:
    """List the survey's methods that are here and their cells, or show one: its steps, settings, source and deviations."""
    from agentevolve import survey
    from agentevolve.cli import tables as listing

    chosen = [survey.described(name)] if name else survey.all_methods()
    values = [one._asdict() | {"settings": {key: str(value) for key, value in one.settings.items()}} for one in chosen]
    _show(values, as_json, lambda: listing.method(chosen[0]) if name else listing.methods(chosen))


@app.command()
def run(
    tasks: Annotated[str, typer.Argument(help="A task set's name or YAML file, such as twc or tasks/twc.yaml.")],
    model: Annotated[str, typer.Option(help="local/NAME, random, oracle, or a LiteLLM name such as openai/gpt-5-mini.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    limit: Annotated[int | None, typer.Option(help="At most this many tasks.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Attempts at each task.")] = 1,
    memory: Annotated[Path | None, typer.Option(help="Recall from this memory or run folder (it is not changed).")] = None,
    adapter: Annotated[Path | None, typer.Option(help="A fine-tuned adapter's folder.")] = None,
    api_base: Annotated[str | None, typer.Option(help="The address of an OpenAI-compatible server.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature.")] = 0.7,
    show_actions: Annotated[bool, typer.Option(help="List the admissible actions in the prompt.")] = True,
    workers: Annotated[int, typer.Option(min=1, help="Attempts side by side.")] = 4,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the local engine (default: all cores).")] = None,
    seed: Annotated[int, typer.Option(help="The run's seed.")] = 0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Stop before the call that would pass this many tokens.")] = None,
    max_usd: Annotated[
        float | None, typer.Option(min=0.0, help="Stop before the call that would pass this many dollars.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder (default: a new one under runs/). A run that is there goes on.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run one policy on a task set and print its success with a 95% interval.

    \b
    agentevolve run twc --model local/smollm2-135m --split test --limit 20
    agentevolve run twc --model openai/my-model --api-base http://127.0.0.1:8000/v1
    """
    from agentevolve.cli import commands

    wanted = commands.policy(
        model, api_base, adapter, memory, temperature=temperature, show_actions=show_actions, threads=threads
    )
    chosen = commands.chosen_tasks(tasks, split, limit)
    place = out or commands.new_folder(Path(tasks).stem)
    report = commands.run_policy(wanted, chosen, place, samples, workers, seed, (max_tokens, max_usd), quiet)
    _show_reports({f"{Path(tasks).stem} {split}": [report]}, as_json)
    print(f"run: {place}", file=sys.stderr)


@app.command()
def evolve(
    config: Annotated[Path, typer.Argument(help="A YAML file, such as examples/quickstart.yaml.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as rounds=2 finetune.epochs=3.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder (default: a new one under runs/).")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out; nothing finished is done again.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Acquire, refine, update, evaluate, for as many rounds as the config says; then print the table and draw the picture.

    \b
    agentevolve evolve examples/quickstart.yaml
    agentevolve evolve examples/quickstart.yaml rounds=2 seeds=[1] --out runs/mine
    agentevolve evolve examples/quickstart.yaml --out runs/mine --resume
    """
    from agentevolve.cli import commands
    from agentevolve.config import read_config
    from agentevolve.loop.evolve import evolve as evolved

    settings = read_config(config, changes or [])
    if resume and out is None:
        raise AgentevolveError("--resume needs --out RUN, the folder of the run to go on with")
    place = out or commands.new_folder(config.stem)
    if dry_run:
        return _show_forecast(commands.forecast_of(settings, place, quiet), place, as_json)
    evolved(settings, place, resume=resume, quiet=quiet)
    _report(place, as_json)


@app.command()
def compare(
    config: Annotated[Path, typer.Argument(help="A YAML file, such as examples/compare.yaml.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as seeds=[0,1] budget.tokens=50000.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="A method to compare besides those of the file: a name or package.module:function.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The comparison's folder (default: a new one under runs/).")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the comparison in --out; methods, seeds and task sets may be added.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put methods side by side: the same tasks, seeds and budget for each, with control arms; then print who is better.

    \b
    agentevolve compare examples/compare.yaml
    agentevolve compare examples/compare.yaml --method my_package.my_file:my_method
    """
    from agentevolve.cli import commands
    from agentevolve.config import read_comparison
    from agentevolve.evaluate import board, to_json

    settings = read_comparison(config, changes or [], method or [])
    if resume and out is None:
        raise AgentevolveError("--resume needs --out FOLDER, the comparison to go on with")
    place = out or commands.new_folder(config.stem)
    if dry_run:
        return _show_forecast(commands.forecast_of(settings, place, quiet), place, as_json)
    found = commands.compared(settings, place, resume, quiet)
    values = {"standings": to_json(found.rows), "cannot_be_concluded": found.caveats}
    sets = dict.fromkeys(row.tasks for row in found.rows)
    _show(values, as_json, lambda: [board([row for row in found.rows if row.tasks == name], name) for name in sets])
    if not as_json:
        print("What cannot be concluded:", *found.caveats, sep="\n- ")
    _print_lines(commands.forecast_error(place))
    print("written:", *found.files, file=sys.stderr)


@app.command()
def distill(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs whose solved train attempts are learnt.")],
    out: Annotated[Path, typer.Option(help="The adapter's new folder.")],
    model: Annotated[str, typer.Option(help="The local model to fine-tune.")] = "local/smollm2-135m",
    per_task: Annotated[int, typer.Option(min=1, help="Different solutions kept of each task, shortest first.")] = 1,
    max_turns: Annotated[int | None, typer.Option(min=1, help="Leave out longer solutions.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the rows.")] = 2,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="The peak learning rate.")] = 5e-4,
    max_length: Annotated[int, typer.Option(min=2, help="Tokens after which a row is cut.")] = 2048,
    keep_memory: Annotated[
        bool, typer.Option("--keep-memory", help="Keep recalled entries in the rows (default: strip them).")
    ] = False,
    seed: Annotated[int, typer.Option(help="The training's seed.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Fine-tune the local model on what it solved: the shortest solution of each train task in the runs becomes a row."""
    from agentevolve.cli import commands

    settings = {"epochs": epochs, "learning_rate": learning_rate, "max_length": max_length}
    learnt = commands.distill(runs, out, model, per_task, max_turns, settings, keep_memory, seed, quiet)
    print(f"{out}: learnt from {learnt} trajectories; try it with: agentevolve run TASKS --model {model} --adapter {out}")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run's folder.")], as_json: Json = False) -> None:
    """Print a run's tables (all seeds pooled) and draw its learning curve into the run's folder."""
    _report(run, as_json)


@memory_app.command("list")
def memory_list(
    folder: Annotated[Path, typer.Argument(help="A run or a memory folder.")],
    kind: Annotated[str | None, typer.Option(help="Only entries of this kind: demo, reflection, …")] = None,
    as_of: Annotated[int | None, typer.Option(help="As it was after this round.")] = None,
    as_json: Json = False,
) -> None:
    """List the entries, oldest first."""
    from agentevolve.cli import commands
    from agentevolve.cli import tables as listing

    entries = commands.entries(folder, kind, as_of)
    _show([entry.model_dump(mode="json") for entry in entries], as_json, lambda: listing.entries(entries))


@memory_app.command("show")
def memory_show(
    folder: Annotated[Path, typer.Argument(help="A run or a memory folder.")],
    id: Annotated[str, typer.Argument(help="An entry's id, as `memory list` prints it.")],
    as_json: Json = False,
) -> None:
    """Show one entry whole, with the trajectories it came from."""
    from agentevolve.cli import commands
    from agentevolve.cli import tables as listing

    entry = commands.entry(folder, id)
    _show(entry.model_dump(mode="json"), as_json, lambda: listing.entry(entry))


@memory_app.command("search")
def memory_search(
    folder: Annotated[Path, typer.Argument(help="A run or a memory folder.")],
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option(min=1, help="How many entries.")] = 5,
    as_json: Json = False,
) -> None:
    """Find the entries whose keys are nearest to a text, with their cosine similarity."""
    from agentevolve.cli import commands
    from agentevolve.cli import tables as listing

    found = commands.search(folder, query, k)
    rows = [{"similarity": similarity, **entry.model_dump(mode="json")} for entry, similarity in found]
    _show(rows, as_json, lambda: listing.found(found))


@memory_app.command("stats")
def memory_stats(folder: Annotated[Path, typer.Argument(help="A run or a memory folder.")], as_json: Json = False) -> None:
    """Count the entries by kind, environment and round."""
    from agentevolve.cli import commands
    from agentevolve.cli import tables as listing

    stats = commands.memory_stats(folder)
    _show(stats, as_json, lambda: listing.stats(stats))


@memory_app.command("rebuild")
def memory_rebuild(folder: Annotated[Path, typer.Argument(help="A run or a memory folder.")]) -> None:
    """Delete the search index and build it again from the journal."""
    from agentevolve.cli import commands

    print(f"{folder}: {commands.rebuild(folder)} keys indexed")


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


def _report(place: Path, as_json: bool) -> None:
    from agentevolve.cli import commands

    found = commands.reports(place)
    _show_reports(found.tables, as_json)
    for line in found.verdicts:
        print(line, file=sys.stderr if as_json else sys.stdout)
    _print_lines(commands.forecast_error(place))
    print(f"picture: {found.draw()}", file=sys.stderr)


def _show_forecast(found: Forecast, place: Path, as_json: bool) -> None:
    from agentevolve.cli import tables as listing

    _show(found.model_dump(mode="json"), as_json, lambda: listing.forecast(found))
    print(f"kept: its error is told when the run in {place} is done (--out {place})", file=sys.stderr)


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _show_reports(tables: dict[str, Any], as_json: bool) -> None:
    from agentevolve.evaluate import table, to_json

    values = {name: to_json(reports) for name, reports in tables.items()}
    _show(values, as_json, lambda: [table(reports, name) for name, reports in tables.items()])


def _show(values: Any, as_json: bool, tables: Any) -> None:
    """Print `values` as JSON, or the tables that the function `tables` makes."""
    if as_json:
        print(json.dumps(values, indent=1, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=160)
    made: list[Table | str] = tables()
    for one in made:
        console.print(one)
