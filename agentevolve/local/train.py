"""Fine-tuning the local model: a LoRA adapter trained on examples with TRL's SFTTrainer and PEFT.

Two things differ from the plain trainer. The language model head runs only at positions whose next token is learnt: TRL's own
fused head does so on Triton devices alone, on a CPU it scores every position. And on a CPU every row is its own micro-batch,
gradients are summed over `batch_size` rows: no padding is computed, and memory grows with the longest row, not with the batch.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agentevolve.local import adapter
from agentevolve.local.adapter import AdapterInfo, LoraSettings
from agentevolve.local.rows import IGNORED, Row, collate, fit, render
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Example

__all__ = ["LoraSettings", "TrainResult", "train_lora"]

Progress = Callable[[int, int, float], None]  # step, steps, loss


class TrainResult(NamedTuple):
    """What a training did: mean loss of its first and last tenth of steps, tokens seen (all epochs), cost.

    `peak_memory_bytes` is the device's on a GPU, else the highest resident size the process ever had.
    """

    loss_first: float
    loss_last: float
    tokens: int
    labelled: int
    steps: int
    seconds: float
    peak_memory_bytes: int


def train_lora(
    folder: Path,
    examples: Sequence[Example],
    out: Path,
    settings: LoraSettings,
    *,
    seed: int,
    base: str,
    progress: Progress | None = None,
    start: Path | None = None,
) -> TrainResult:
    """Train an adapter for the transformers model in `folder`, whose identity is `base`, and write it to the new folder `out`.

    It starts from the base, or from the adapter in `start`. The same arguments give the same adapter on the same machine.
    `out` appears when it is complete. `progress` is called after each optimiser step with step, steps and mean loss.
    Raises AgentevolveError when `out` exists, nothing is left to learn, or `start` does not fit.
    """
    adapter.llama_config(folder)
    if out.exists():
        raise AgentevolveError(f"{out}: exists already; an adapter is never overwritten")
    origin = adapter.check_start(start, base, settings) if start else None
    scratch = out.with_name(f".{out.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        result = _train(folder, examples, scratch, settings, seed, base, progress, start)
        adapter.export_gguf(scratch, folder)
        info = _info(scratch, examples, settings, seed, base, origin, result)
        (scratch / adapter.INFO).write_text(info.model_dump_json(indent=1), encoding="utf-8")
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return result


def load_base(folder: Path) -> tuple[Any, Any]:
    """The float32 model and the tokenizer in `folder`, from safetensors, without running code from there."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"local_files_only": True, "trust_remote_code": False}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", use_safetensors=True, **options)
    return model, AutoTokenizer.from_pretrained(folder, **options)


def _train(
    folder: Path,
    examples: Sequence[Example],
    out: Path,
    settings: LoraSettings,
    seed: int,
    base: str,
    progress: Progress | None,
    start: Path | None,
) -> TrainResult:
    with _quiet():
        model, tokenizer = load_base(folder)
        rows = fit([render(example, tokenizer) for example in examples], settings.max_length)
        if not rows:
            raise AgentevolveError(f"nothing to learn in {len(examples)} examples cut to {settings.max_length} tokens")
        trainer = build_trainer(model, tokenizer, rows, out, settings, seed)
        trainer.add_callback(_callback(progress))
        if start:
            adapter.load_weights(trainer.model, start)
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        adapter.save_weights(trainer.model, out, base)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    tenth = math.ceil(len(losses) / 10)
    tokens = settings.epochs * sum(len(row.ids) for row in rows)
    labelled = settings.epochs * sum(label != IGNORED for row in rows for label in row.labels)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    return TrainResult(first, last, tokens, labelled, len(losses), seconds, peak_memory())


def build_trainer(model: Any, tokenizer: Any, rows: Sequence[Row], out: Path, settings: LoraSettings, seed: int) -> Any:
    """TRL's trainer over `rows` for `model`, with a fresh adapter on it; the caller calls its `train()`."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback

    gpu = torch.cuda.is_available()
    micro, half = (settings.batch_size, torch.cuda.is_bf16_supported()) if gpu else (1, False)
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=sorted(adapter.TENSORS),
        task_type="CAUSAL_LM",
    )
    trainer = _trainer_class()(
        model=model,
        args=_arguments(out, settings, seed, micro=micro, bf16=half),
        train_dataset=Dataset.from_list([row._asdict() for row in rows]),
        processing_class=tokenizer,
        data_collator=lambda batch: collate(batch, tokenizer.eos_token_id),
        peft_config=lora,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(out: Path, settings: LoraSettings, seed: int, *, micro: int, bf16: bool) -> Any:
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(out),
        seed=seed,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=settings.batch_size // micro,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        bf16=bf16,
        gradient_checkpointing=False,
        max_length=None,  # the rows are cut already
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def _trainer_class() -> Any:
    import torch
    from trl import SFTTrainer

    class LabelledHead(SFTTrainer):  # type: ignore[misc]
        """SFTTrainer whose head runs at the learnt positions only, and which reports to nobody."""

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            """Weighted cross-entropy, summed over the rows, over the number of learnt tokens of the optimiser step."""
            target = inputs["labels"][:, 1:]  # (rows, length - 1): the token after each position
            at = (target != IGNORED).any(0).nonzero()[:, 0]  # (places,): positions some row learns from
            given = {key: inputs[key] for key in ("input_ids", "attention_mask") if key in inputs}
            logits = model(**given, logits_to_keep=at, use_cache=False).logits.float()  # (rows, places, vocabulary)
            wanted = target[:, at]  # (rows, places)
            losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)
            count = (target != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
            return (losses.sum(1) * inputs["weight"]).sum() / count

        def _send_telemetry(self) -> None:
            """Replaces TRL's report to the hub."""

    return LabelledHead


def _callback(progress: Progress | None) -> Any:
    from transformers import TrainerCallback

    class Report(TrainerCallback):  # type: ignore[misc]
        """Passes the loss of each optimiser step on."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
            """Called after each step, as logging_steps is 1, and once at the end without a loss."""
            if progress and "loss" in logs:
                progress(state.global_step, state.max_steps, float(logs["loss"]))

    return Report()


def _info(
    out: Path, examples: Sequence[Example], settings: LoraSettings, seed: int, base: str, start: str | None, result: TrainResult
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
        versions={name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft", "trl")},
        files=adapter.digests(out),
        **numbers,
    )


def peak_memory() -> int:
    """Bytes: the highest GPU memory of this process if it has a GPU, else its highest resident size."""
    import resource
    import sys

    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers on the terminal."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # trl and transformers about each other's option names
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
