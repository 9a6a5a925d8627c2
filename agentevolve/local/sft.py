"""TRL's SFTTrainer with PEFT's LoRA, made for small machines.

Three things differ from the plain trainer. The language model head runs only at positions whose next token is learnt: TRL's
own fused head does so on Triton devices alone, on a CPU it scores every position. No padding is computed: on a CPU every row is
its own micro-batch and gradients are summed over `batch_size` rows, on a GPU the rows of a step are one sequence, in which no
row looks at another. The first step learns: the plain scheduler gives it a rate of zero. Nothing is reported to a hub or a
tracker.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentevolve.local.adapter import LoraSettings
from agentevolve.local.objectives import advantage_class, divergence, labelled_logits, learnt, preference_class, token_losses
from agentevolve.local.processes import count, on_gpu, share_of
from agentevolve.local.room import ONE_BY_ONE, Way
from agentevolve.local.rows import Row, collate


def build_trainer(
    model: Any, tokenizer: Any, rows: Sequence[Row], out: Path, settings: LoraSettings, seed: int, way: Way = ONE_BY_ONE
) -> Any:
    """TRL's trainer over `rows` for `model`, with a fresh adapter on it; the caller calls its `train()`.

    `way` changes what it takes of memory and time, not what is learnt but for rounding; in bfloat16 where a GPU has it.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback

    half = on_gpu() and torch.cuda.is_bf16_supported()
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    kind = trainer_class()
    if settings.objective != "sft":
        kind = (advantage_class if settings.objective == "grpo" else preference_class)(kind)
    trainer = kind(
        model=model,
        args=_arguments(out, settings, seed, way, bf16=half),
        train_dataset=Dataset.from_list([{"place": place, **row._asdict()} for place, row in enumerate(rows)]),
        processing_class=tokenizer,
        data_collator=collate,
        peft_config=lora,
    )
    trainer.settings = settings
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(out: Path, settings: LoraSettings, seed: int, way: Way, *, bf16: bool) -> Any:
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(out),
        seed=seed,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=way.rows,
        gradient_accumulation_steps=share_of(settings.batch_size) // way.rows,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        bf16=bf16,
        use_cpu=not on_gpu(),
        gradient_checkpointing=way.again,
        gradient_checkpointing_kwargs={"use_reentrant": False} if way.again else None,
        max_length=None,  # the rows are cut already
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        logging_steps=1,
        logging_nan_inf_filter=False,  # else a loss that is no number is reported as the one before it
        save_strategy="no",  # Checkpoints asks for what is saved
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def trainer_class() -> Any:
    """TRL's SFTTrainer, changed as the head of this file says."""
    import torch
    from trl import SFTTrainer

    class LabelledHead(SFTTrainer):  # type: ignore[misc]
        """SFTTrainer whose head runs at the learnt positions only, and which reports to nobody."""

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            """Weighted cross-entropy, summed over the tokens, over the number of learnt tokens of the optimiser step."""
            logits, wanted = labelled_logits(model, inputs)
            losses = token_losses(logits, wanted)
            if self.settings.kl:
                losses = losses + self.settings.kl * divergence(model, inputs, logits)
            loss = (losses * inputs["weight"][:, learnt(inputs["labels"])]).sum()
            if num_items_in_batch is None:
                return loss / wanted.numel()
            # gradients are averaged over the processes, and the number is that of all of them
            return loss / num_items_in_batch * count()

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            """The plain scheduler's first step has a rate of zero and learns nothing; here all steps learn."""
            warm: float = self.args.warmup_steps * num_training_steps

            def rate(step: int) -> float:
                return min((step + 1) / (warm + 1), (num_training_steps - step) / (num_training_steps - warm))

            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, rate)
            return self.lr_scheduler

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            """As transformers does it: TRL adds a model card, which names this machine's folders."""
            super(SFTTrainer, self)._save_checkpoint(model, trial)

        def _send_telemetry(self) -> None:
            """Replaces TRL's report to the hub."""

    return LabelledHead
