"""In weights: trajectories become training rows, rows an adapter, an adapter a new policy (survey 2404.14387, section 6.1)."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from agentevolve.act.attempt import counter, parts
from agentevolve.act.prompting import conversation
from agentevolve.act.recall import Asked, at_start
from agentevolve.local import catalog
from agentevolve.local.adapter import read_adapter
from agentevolve.local.processes import first
from agentevolve.local.rows import Rows, account
from agentevolve.local.train import LoraSettings, TrainResult, rows_of, train_lora
from agentevolve.models.engines import vllm
from agentevolve.models.lite import base_of
from agentevolve.policy import Policy
from agentevolve.records import Example, Trajectory, Usage
from agentevolve.refine import Pair, keep, learnable
from agentevolve.run.folder import Run, derived
from agentevolve.run.progress import progress
from agentevolve.update.elsewhere import Job, train_elsewhere


def examples(
    trajectories: Sequence[Trajectory],
    *,
    keep_memory: float = 0.0,
    solved: bool = True,
    weights: Mapping[str, float] | None = None,
) -> list[Example]:
    """One training row for each solved trajectory, or for each at all, of which the agent's own actions are learnt.

    With `weights` (by trajectory id) for each that has one, solved or not, with that weight.

    In a share `keep_memory` of the rows, in [0, 1], what was recalled stays in the prompt: they teach to use memory. In the
    others it is stripped (context distillation): they teach to do without. Which is which hangs on a trajectory's id alone.
    A hint never stays.
    """
    if weights is None:
        learnt = keep(trajectories) if solved else learnable(trajectories)
    else:
        learnt = [one for one in learnable(trajectories) if one.id in weights]
    rows = []
    for trajectory in learnt:
        kept = derived("keep memory", trajectory.id) < keep_memory * 2**31
        prompt, completion = conversation(trajectory, keep_context=kept)
        id, weight = trajectory.id, 1.0 if weights is None else weights[trajectory.id]
        rows.append(Example(id=id, prompt=tuple(prompt), completion=tuple(completion), weight=weight, sources=(id,)))
    return rows


def recalling(trajectories: Sequence[Trajectory], policy: Policy, run: Run) -> list[Trajectory]:
    """The attempts as if each had begun with what `policy` recalls now, of other tasks than its own: for rows that keep memory.

    What they recalled themselves gives way. A policy without memory changes nothing.
    """
    _, memory = parts(policy, run)
    if memory is None:
        return list(trajectories)
    count, made = counter(policy, run), []
    for one in trajectories:
        rng = run.rng("recalling", one.id)
        found = at_start(memory, Asked(policy, one.task, one.prompt, rng, bool(one.actions), bool(one.tools), True, count))
        turns = [turn.model_copy(update={"looked": (), "context": ""}) for turn in one.turns]
        shown = {
            "recalled": found.ids,
            "demos": found.demos,
            "context": found.context,
            "looked": found.looked,
            "turns": tuple(turns),
        }
        made.append(one.model_copy(update=shown))
    return made


def preferences(pairs: Sequence[Pair], *, longer: int | None = None) -> list[Example]:
    """One row for each pair: what the better attempt did is preferred to what the worse one did after the same opening.

    Recalled entries and hints are stripped. With `longer` the worse attempt is cut to so many turns more than the better one's.
    """
    rows = []
    for better, worse in pairs:
        prompt, completion = conversation(better, keep_context=False)
        end = len(worse.turns) if longer is None else len(better.turns) + longer
        _, rejected = conversation(worse.model_copy(update={"turns": worse.turns[:end]}), keep_context=False)
        id, sources = f"{better.id} over {worse.id}", (better.id, worse.id)
        rows.append(Example(id=id, prompt=tuple(prompt), completion=tuple(completion), rejected=tuple(rejected), sources=sources))
    return rows


def finetune(
    policy: Policy, rows: Sequence[Example], run: Run, name: str, settings: LoraSettings, *, start: str | None = None
) -> Policy:
    """The policy with a new adapter, trained on `rows`, in the run's folder `adapters/name`.

    It starts from the base, or goes on from the adapter in the folder `start`. An adapter that is there already (a resumed run)
    is taken as it is. Without rows the policy comes back unchanged. On a Ray cluster it is trained where the GPUs are. Raises
    AgentevolveError for a model whose weights are not on this machine.
    """
    if not rows:
        return policy
    out = run.folder / "adapters" / name
    if not out.exists():
        run.rest("model")
        vllm.stop()
        base, seed = local_base(policy.model), run.derive("finetune", name)
        if not (run.where.on == "ray" and train_elsewhere(_job(policy, base, rows, out, settings, seed, start), run)):
            fit(
                base,
                rows,
                out,
                settings,
                seed=seed,
                quiet=run.quiet,
                threads=policy.threads,
                start=Path(start) if start else None,
                afford=run.budget.afford,
            )
    made = read_adapter(out)
    run.spend(f"train/{name}", Usage(trained_tokens=made.tokens, seconds=made.seconds))
    return policy.using(adapter=str(out))


def _job(
    policy: Policy,
    base: catalog.LocalModel,
    rows: Sequence[Example],
    out: Path,
    settings: LoraSettings,
    seed: int,
    start: str | None,
) -> Job:
    return Job(
        model=policy.model,
        base=base.identity,
        rows=tuple(rows),
        settings=settings,
        seed=seed,
        out=str(out.resolve()),
        start=start and str(Path(start).resolve()),
        threads=policy.threads,
    )


class Rendered(NamedTuple):
    """What a training begins with: the model's folder, its rows, how many steps they make, and which of them were cut or lost."""

    folder: Path
    rows: Rows
    steps: int
    lost: str


def rendered(base: catalog.LocalModel, rows: Sequence[Example], settings: LoraSettings, threads: int | None) -> Rendered:
    """The rows as `base` reads them, on `threads` threads from now on (None: all cores)."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    folder = catalog.training_folder(base)
    made = rows_of(folder, rows, settings)
    steps = settings.epochs * math.ceil(len(made.rows) / settings.batch_size)
    return Rendered(folder, made, steps, account(made.cut, made.dropped, settings.max_length))


def fit(
    base: catalog.LocalModel,
    rows: Sequence[Example],
    out: Path,
    settings: LoraSettings,
    *,
    seed: int,
    quiet: bool,
    threads: int | None,
    start: Path | None = None,
    afford: Callable[[int], None] | None = None,
) -> TrainResult:
    """Train an adapter of `base` on `rows` into the new folder `out`, on `threads` threads (None: all cores).

    It starts from the base, or from the adapter in `start`. Rows that are cut or left out are told on stderr. `afford` is told,
    before the first step, how many tokens the training is going to see; what it raises stops it.
    """
    folder, made, steps, lost = rendered(base, rows, settings, threads)
    if lost and first():
        print(f"{out.name}: {lost}", file=sys.stderr)
    with progress(f"{out.name}: fine-tuning on {len(made.rows)} examples", steps, quiet=quiet or not first()) as advance:
        return train_lora(
            folder,
            made,
            out,
            settings,
            seed=seed,
            base=base.identity,
            start=start,
            afford=afford,
            progress=lambda _, __, loss: advance(f"loss {loss:.2f}"),
        )


def local_base(model: str) -> catalog.LocalModel:
    """The weights behind `model`. Raises AgentevolveError for a backend that keeps its own."""
    return base_of(model)
