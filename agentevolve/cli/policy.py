"""The command `distill`: a policy made from what others lived through; and the `policy` commands: what a run has learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from agentevolve.cli.folders import named_folder
from agentevolve.cli.options import Json, Quiet, RunFolder, TrainOptions, finite
from agentevolve.cli.show import show
from agentevolve.protocols import AgentevolveError

if TYPE_CHECKING:
    from agentevolve.local.export import Form
    from agentevolve.records import Trajectory

Name = Annotated[str, typer.Argument(help="An adapter's name, as `policy list` prints it.")]


def distill(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs whose solved train attempts are learnt.")],
    out: Annotated[Path, typer.Option(parser=named_folder, metavar="<path>", help="The adapter's new folder.")],
    training: TrainOptions,
    model: Annotated[str, typer.Option(help="The local model to fine-tune.")] = "local/smollm2-135m",
    per_task: Annotated[int, typer.Option(min=1, help="Different solutions kept of each task, shortest first.")] = 1,
    max_turns: Annotated[int | None, typer.Option(min=1, help="Leave out longer solutions.")] = None,
    keep_memory: Annotated[
        float, typer.Option(min=0.0, max=1.0, callback=finite, help="The share of rows in which recalled entries stay.")
    ] = 0.0,
    quiet: Quiet = False,
) -> None:
    """Fine-tune the local model on what it solved: the shortest solution of each train task in the runs becomes a row.

    Several processes train one adapter together: accelerate launch --num_processes 4 $(which agentevolve) distill …
    """
    from agentevolve.local.adapter import lora_settings, read_adapter
    from agentevolve.local.processes import first
    from agentevolve.local.train import check_trainable
    from agentevolve.update import examples, fit, local_base

    base, settings = (
        local_base(model),
        lora_settings(epochs=training.epochs, learning_rate=training.learning_rate, max_length=training.max_length),
    )
    if out.exists():
        raise AgentevolveError(f"{out}: exists already; name a new folder with --out")
    rows = examples(kept(runs, per_task, max_turns), keep_memory=keep_memory)
    check_trainable(base)
    fit(base, rows, out, settings, seed=training.seed, quiet=quiet, threads=None)
    if not first():
        return
    learnt = len(read_adapter(out).sources)
    print(f"{out}: learnt from {learnt} trajectories; try it with: agentevolve run TASKS --model {model} --adapter {out}")


def kept(runs: Sequence[Path], per_task: int, max_turns: int | None) -> list[Trajectory]:
    """The solved train attempts of the runs to learn from. Raises AgentevolveError if there is none."""
    from agentevolve.refine import best
    from agentevolve.run.folder import read_run, seeds

    folders = [one for folder in runs for one in seeds(folder)]
    lived, solved = 0, []
    for run in map(read_run, folders):
        tried = [one for one in run.outcomes_of(lambda _: True) if one.task.split == "train"]
        lived += len(tried)
        solved += [run.trajectories[one.id] for one in tried if one.solved]
    found = best(solved, per_task=per_task, max_turns=max_turns)
    if not found:
        names = ", ".join(map(str, runs))
        raise AgentevolveError(f"{names}: no solved attempt at a train task to learn from ({lived} train attempts)")
    return found


def list_policies(folder: RunFolder, as_json: Json = False) -> None:
    """List the weights that a run has learnt: from what, by which objective, and what the gate said of them."""
    from agentevolve.cli import tables
    from agentevolve.loop.policies import learnt

    found = learnt(folder)
    show([one.model_dump(mode="json") for one in found], as_json, lambda: tables.policies(found))


def show_policy(folder: RunFolder, name: Name, as_json: Json = False) -> None:
    """Show one adapter whole: hashes, training, the trajectories it came from, verdicts, and what went on from it."""
    from agentevolve.cli import tables
    from agentevolve.loop.policies import adapter_named

    found = adapter_named(folder, name)
    show(found.model_dump(mode="json"), as_json, lambda: tables.policy(found))


def diff(folder: RunFolder, name: Name, other: Name, as_json: Json = False) -> None:
    """Show in what two adapters differ: settings, rows and attempts, verdicts, and how alike they change the weights."""
    from agentevolve.cli import tables
    from agentevolve.loop.policies import adapter_named, unlike

    found = unlike(adapter_named(folder, name), adapter_named(folder, other))
    show(found.model_dump(mode="json"), as_json, lambda: tables.unlike(found))


def rollback(
    folder: RunFolder,
    round: Annotated[int, typer.Argument(help="The policy that was in place after this round; 0: the base.")],
    why: Annotated[str, typer.Option(help="Why, for the journal.")] = "",
) -> None:
    """Put an earlier policy back in place: further rounds (evolve --resume rounds=N) go on from it. Nothing is lost."""
    from agentevolve.loop.policies import take_back

    for line in take_back(folder, round, why):
        print(line)


def import_policy(
    source: Annotated[Path, typer.Argument(help="A LoRA folder of PEFT: adapter_config.json, adapter_model.safetensors.")],
    out: Annotated[Path, typer.Option(parser=named_folder, metavar="<path>", help="The adapter's new folder.")],
    model: Annotated[str, typer.Option(help="The base that it was trained on.")] = "local/smollm2-135m",
) -> None:
    """Take in an adapter that another tool has trained on a local model."""
    from agentevolve.local.foreign import bring
    from agentevolve.update import local_base

    if out.exists():
        raise AgentevolveError(f"{out}: exists already; name a new folder with --out")
    bring(source, out, local_base(model))
    print(f"{out}: try it with: agentevolve run TASKS --model {model} --adapter {out}")


def export_policy(
    folder: RunFolder,
    name: Name,
    out: Annotated[Path, typer.Option(parser=named_folder, metavar="<path>", help="The new folder, or the new file of a GGUF.")],
    form: Annotated[
        str, typer.Option("--as", help="peft (a folder with a model card), merged (a transformers folder), or gguf.")
    ] = "peft",
    model: Annotated[str | None, typer.Option(help="The base (default: the model of the run).")] = None,
) -> None:
    """Write an adapter for other tools: PEFT, transformers or llama.cpp."""
    from agentevolve.local import catalog
    from agentevolve.local.export import FORMS, card, export
    from agentevolve.loop.policies import adapter_named
    from agentevolve.update import local_base

    if form not in FORMS:
        raise AgentevolveError(f"--as: {form!r} is not known; known: {', '.join(FORMS)}")
    if out.exists():
        raise AgentevolveError(f"{out}: exists already; name a new one with --out")
    found = adapter_named(folder, name)
    named = model or _model_of(folder)
    about = {
        "base (sha256 of its weights)": found.base,
        "adapter (sha256 of its weights)": found.identity,
        "objective": f"{found.objective}, {found.rows} rows of {len(found.trajectories)} attempts, {found.tokens} tokens",
        "verdict": "; ".join(verdict.said for verdict in found.verdicts) or "none: it was not up for promotion",
    }
    base, chosen = local_base(named), cast("Form", form)
    licence = catalog.CATALOG[base.name].licence if base.name in catalog.CATALOG else ""
    said = card(about, name=found.name, model=named, form=chosen, licence=licence)
    export(Path(found.path), out, chosen, base=base, card=said)
    print(out)


def _model_of(folder: Path) -> str:
    """The model that the run, or the run of which it is a seed, was to train. Raises AgentevolveError if it does not say."""
    from agentevolve.config import read_config

    for place in (folder, folder.resolve().parent):
        if (place / "config.yaml").is_file():
            return read_config(place / "config.yaml").model
    raise AgentevolveError(f"{folder}: does not say on which model it was trained; name it with --model")
