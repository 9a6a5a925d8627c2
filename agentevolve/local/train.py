"""Fine-tuning the local model: examples become rows, rows a LoRA adapter on disk, complete or not at all."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agentevolve.local import adapter, catalog, files, processes
from agentevolve.local.adapter import AdapterInfo, LoraSettings
from agentevolve.local.canary import SAMPLE, Probe, probes
from agentevolve.local.checkpoints import EVERY, PACKAGES, Checkpoints, checkpoints, key_of
from agentevolve.local.families import family_of
from agentevolve.local.quiet import quiet
from agentevolve.local.room import ONE_BY_ONE, Memory, Way, of_gpu, sizes, way_of
from agentevolve.local.rows import IGNORED, Row, Rows, prepare, render
from agentevolve.local.sft import build_trainer
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Example

__all__ = ["LoraSettings", "TrainResult", "check_trainable", "rows_of", "train_lora"]

LOCALLY: Any = {"local_files_only": True, "trust_remote_code": False}
Progress = Callable[[int, int, float], None]  # step, steps, loss


class TrainResult(NamedTuple):
    """What a training did: mean loss of its first and last tenth of steps, tokens read (in all epochs), cost.

    `cut` rows were learnt in part, `dropped` ones, by reason, not at all. `peak_memory_bytes` is the device's on a GPU, else the
    highest resident size the process ever had.
    """

    loss_first: float
    loss_last: float
    tokens: int
    labelled: int
    steps: int
    seconds: float
    peak_memory_bytes: int
    cut: int
    dropped: dict[str, int]


def check_trainable(base: catalog.LocalModel) -> None:
    """Raise AgentevolveError, naming the model and the reason, if `base` cannot be fine-tuned; its weights are not read."""
    try:
        family_of(catalog.architecture(base))
        with quiet():
            render(SAMPLE, load_tokenizer(*catalog.tokenizer_files(base)))
    except AgentevolveError as error:
        raise AgentevolveError(f"{base.name} cannot be fine-tuned: {error}") from None


def rows_of(folder: Path, examples: Sequence[Example], settings: LoraSettings) -> Rows:
    """The rows that the transformers model in `folder` is trained on; what makes no row is left out and counted.

    Raises AgentevolveError when nothing is left to learn.
    """
    with quiet():
        return prepare(examples, load_tokenizer(folder), settings.objective, settings.max_length)


def train_lora(
    folder: Path,
    rows: Rows,
    out: Path,
    settings: LoraSettings,
    *,
    seed: int,
    base: str,
    progress: Progress | None = None,
    start: Path | None = None,
    afford: Callable[[int], None] | None = None,
    every: float = EVERY,
    memory: Callable[[], Memory | None] = of_gpu,
) -> TrainResult:
    """Train an adapter for the transformers model in `folder`, whose identity is `base`, and write it to the new folder `out`.

    `rows` are what `rows_of` made for these settings. It starts from the base, or from the adapter in `start`. The same
    arguments give the same adapter on the same machine, also when the training was killed and is gone on with, from what is
    kept of it about `every` seconds. `out` appears when it is complete. `afford` is called before the first
    step with the tokens that all epochs will see, and may refuse them by raising. `progress` is called after each optimiser
    step with step, steps and mean loss. What is free of a GPU's `memory` decides how rows go through the model (`room.way_of`),
    which changes the weights by rounding alone.
    Raises AgentevolveError when `out` exists, `start` does not fit, the GPU's memory is too small (before anything is loaded),
    or the training comes to a loss that is no number.
    """
    family_of(files.read_config(folder).get("model_type"))
    origin = adapter.check_start(start, base, settings) if start else None
    way = _way(folder, rows.rows, settings, memory())
    key = key_of(rows.rows, settings, seed, base, origin)
    every = every if processes.count() == 1 else math.inf  # a clock of each would ask for one at another step
    with _writing(out, key, every) as (kept, scratch), quiet():
        model, tokenizer = load_base(folder)
        if afford:
            afford(read_tokens(rows.rows, settings))
        trainer = build_trainer(model, tokenizer, rows.rows, kept.folder, settings, seed, way)
        if start:
            adapter.load_weights(trainer.model, start)
        if settings.objective != "sft":
            trainer.refer()
        result = _run(trainer, rows, settings, progress, kept)
        if not processes.first():
            return result
        adapter.save_weights(trainer.model, scratch, base)
        adapter.export_gguf(scratch, folder)
        adapter.write_rows(rows.examples, scratch)
        info = _info(scratch, rows.examples, settings, seed, base, origin, result, probes(trainer.model, tokenizer))
        (scratch / adapter.INFO).write_text(info.model_dump_json(indent=1), encoding="utf-8")
    return result


@contextlib.contextmanager
def _writing(out: Path, key: str, every: float) -> Iterator[tuple[Checkpoints, Path]]:
    """Where a training keeps its checkpoints and writes its adapter; only the first of several processes does."""
    if processes.first():
        with checkpoints(out, key, every) as kept, unfinished(out) as scratch:
            yield kept, scratch
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Checkpoints(Path(folder), every), Path(folder)


def load_base(folder: Path, dtype: str = "") -> tuple[Any, Any]:
    """The model and the tokenizer in `folder`, from safetensors, without running code from there.

    Unless a `dtype` is named, the frozen base is held in bfloat16 where the processor multiplies it faster (a GPU, or a CPU with
    AVX-512 BF16), else in float32; the adapter is trained in float32 either way.
    """
    from transformers import AutoModelForCausalLM

    dtype = dtype or _dtype()
    with contextlib.ExitStack() as opened:
        if wide := _wide(folder, dtype, opened):
            model = _narrowed(folder, dtype, wide)
        else:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True, **LOCALLY)
    return model, load_tokenizer(folder)


def _wide(folder: Path, dtype: str, opened: contextlib.ExitStack) -> dict[str, Any]:
    """The weights in `folder`, to be read one by one while `opened`, if they take more room than in `dtype`, else none."""
    from safetensors import safe_open

    weights: dict[str, Any] = {}
    for path in files.weights(folder) if dtype != "float32" else ():
        file = opened.enter_context(safe_open(path, "pt", backend="pread"))
        weights |= {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    return weights if any(weight.get_dtype() == "F32" for weight in weights.values()) else {}


def _narrowed(folder: Path, dtype: str, weights: dict[str, Any]) -> Any:
    """The model in `folder` with these weights in `dtype`, as `from_pretrained` makes it from the folder, but in less memory.

    It maps whole files, and all that was read of them stays in memory until all is: with the float32 file of 1.5 billion
    parameters that was more than their training took.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    config = AutoConfig.from_pretrained(folder, **LOCALLY)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    said = GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").is_file() else None
    model = type(empty).from_pretrained(None, config=empty.config, dtype=dtype, state_dict=weights, generation_config=said)
    model.name_or_path = model.config.name_or_path = str(folder)  # PEFT looks there for a config, else on the hub
    return model


def load_tokenizer(folder: Path, gguf_file: str | None = None) -> Any:
    """The tokenizer in `folder`, or in the GGUF file of that name there. Raises AgentevolveError when there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, gguf_file=gguf_file, **LOCALLY)
    except Exception as error:  # files from outside: transformers raises whatever their reading ends in
        what = " ".join(str(error).split())[:200]
        raise AgentevolveError(f"{folder / (gguf_file or '')}: its tokenizer cannot be read: {what}") from None


def _dtype() -> str:
    import torch

    fast = torch.cuda.is_bf16_supported() if processes.on_gpu() else torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if fast else "float32"


def _way(folder: Path, rows: Sequence[Row], settings: LoraSettings, have: Memory | None) -> Way:
    """How the rows go through the model in the memory of a GPU, if there is one."""
    if have is None:
        return ONE_BY_ONE
    from transformers import AutoConfig

    lengths = [
        (len(row.ids) + len(row.other_ids), sum(label != IGNORED for label in (*row.labels, *row.other_labels))) for row in rows
    ]
    config = AutoConfig.from_pretrained(folder, **LOCALLY).to_dict()
    half = {"half": _dtype() == "bfloat16", "judged": settings.kl > 0}
    found = sizes(config, files.parameters(folder), settings.rank, lengths, **half)
    together = processes.share_of(settings.batch_size) if settings.objective == "sft" else 1
    return way_of(folder.name, found, have, together, alone=processes.count() == 1)


def read_tokens(rows: Sequence[Row], settings: LoraSettings) -> int:
    """The tokens that a training reads: every row in every epoch, and what a preference or a divergence compares it with."""
    reads = settings.epochs * (2 if settings.kl else 1) + (settings.objective != "sft")
    return reads * sum(len(row.ids) + len(row.other_ids) for row in rows)


def _run(trainer: Any, rows: Rows, settings: LoraSettings, progress: Progress | None, kept: Checkpoints) -> TrainResult:
    trainer.add_callback(_callback(progress, settings))
    trainer.add_callback(kept.callback())
    before, began = kept.seconds, time.perf_counter()
    trainer.train(resume_from_checkpoint=kept.last)
    seconds = before + time.perf_counter() - began
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    tenth = math.ceil(len(losses) / 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    tokens = read_tokens(rows.rows, settings)
    labelled = settings.epochs * sum(label != IGNORED for row in rows.rows for label in row.labels)
    return TrainResult(first, last, tokens, labelled, len(losses), seconds, peak_memory(), rows.cut, rows.dropped)


def _callback(progress: Progress | None, settings: LoraSettings) -> Any:
    from transformers import TrainerCallback

    class Report(TrainerCallback):  # type: ignore[misc]
        """Passes the loss of each optimiser step on, and stops at one, or a gradient, that is no number."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            """Tell of the steps that were done before a kill."""
            for entry in state.log_history:
                self.on_log(args, state, control, entry)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
            """Called after each step, as logging_steps is 1, and once at the end without a loss."""
            for name in ("loss", "grad_norm"):
                if not math.isfinite(logs.get(name, 0.0)):
                    raise AgentevolveError(
                        f"the training failed: {name} is {logs[name]} at step {state.global_step} of {state.max_steps};"
                        f" nothing was written; try a learning rate below {settings.learning_rate:g}"
                    )
            if progress and "loss" in logs:
                progress(logs.get("step", state.global_step), state.max_steps, float(logs["loss"]))

    return Report()


def _info(
    out: Path,
    examples: Sequence[Example],
    settings: LoraSettings,
    seed: int,
    base: str,
    start: str | None,
    result: TrainResult,
    canary: tuple[Probe, ...],
) -> AdapterInfo:
    numbers = result._asdict()
    del numbers["peak_memory_bytes"]
    return AdapterInfo(
        base=base,
        start=start,
        settings=settings,
        seed=seed,
        examples=tuple(example.id for example in examples),
        sources=tuple(dict.fromkeys(source for example in examples for source in example.sources)),
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
        files=adapter.digests(out),
        canary=canary,
        **numbers,
    )


def peak_memory() -> int:
    """Bytes: the highest GPU memory of this process if it has a GPU, else its highest resident size."""
    import resource
    import sys

    if processes.on_gpu():
        import torch

        return int(torch.cuda.max_memory_allocated())
    with contextlib.suppress(OSError):  # Linux: what getrusage says there may be that of the process that started this one
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextlib.contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that becomes `out` when all went well, and is gone otherwise."""
    if out.exists():
        raise AgentevolveError(f"{out}: exists already; an adapter is never overwritten")
    scratch = out.with_name(f".{out.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
