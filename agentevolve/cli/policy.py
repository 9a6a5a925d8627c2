"""The command `distill`: a policy made from what others lived through."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentevolve.cli.folders import named_folder
from agentevolve.cli.options import Quiet, TrainOptions, finite
from agentevolve.protocols import AgentevolveError

if TYPE_CHECKING:
    from agentevolve.records import Trajectory


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
    """Fine-tune the local model on what it solved: the shortest solution of each train task in the runs becomes a row."""
    from agentevolve.local.adapter import lora_settings, read_adapter
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
    learnt = len(read_adapter(out).sources)
    print(f"{out}: learnt from {learnt} trajectories; try it with: agentevolve run TASKS --model {model} --adapter {out}")


def kept(runs: Sequence[Path], per_task: int, max_turns: int | None) -> list[Trajectory]:
    """The solved train attempts of the runs to learn from. Raises AgentevolveError if there is none."""
    from agentevolve.refine import best
    from agentevolve.run.folder import read_run, seeds

    folders = [one for folder in runs for one in seeds(folder)]
    lived = [attempt for one in folders for attempt in read_run(one).trajectories.values() if attempt.task.split == "train"]
    found = best(lived, per_task=per_task, max_turns=max_turns)
    if not found:
        names = ", ".join(map(str, runs))
        raise AgentevolveError(f"{names}: no solved attempt at a train task to learn from ({len(lived)} train attempts)")
    return found
