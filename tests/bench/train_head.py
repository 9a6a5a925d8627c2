"""What training costs beside the plain trainers: `python tests/bench/train_head.py [rows] [model]`.

On a machine with other work set OMP_NUM_THREADS=1: two threads would spend their time waiting for each other.

The same rows (made-up games, about a tenth of the tokens learnt) for one epoch in optimiser steps of eight rows, each trainer in
a process of its own: transformers' Trainer (all rows of a step padded, logits at every position), TRL's SFTTrainer as it is
(padded, its head in tiles), and ours. The loss of the first step shows that they compute the same thing. On a GPU all three are
in bfloat16, and ours is there in each of the ways in which a step's rows can go through the model, with the memory that is
estimated before a training beside what it took. MODEL may be a transformers folder.
"""

import functools
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentevolve.local import catalog, files, processes, room
from agentevolve.local.adapter import LoraSettings
from agentevolve.local.room import ONE_BY_ONE, Way
from agentevolve.local.rows import IGNORED, Row, render
from agentevolve.local.sft import build_trainer
from agentevolve.local.train import load_base, peak_memory
from agentevolve.records import Example, Message

SETTINGS = LoraSettings(epochs=1)
ROOMS = ["kitchen", "pantry", "backyard", "street", "garage", "alley", "parlor", "bathroom"]


def game(place: int) -> Example:
    dice = random.Random(place)

    def seen() -> Message:
        return Message(
            role="user", content=f"You are in the {dice.choice(ROOMS)}. To the north you see the {dice.choice(ROOMS)}."
        )

    moves = [f"move {dice.choice(['north', 'south', 'east', 'west'])}" for _ in range(dice.randint(2, 9))]
    said = [message for move in moves for message in (Message(role="assistant", content=move), seen())]
    prompt = (Message(role="system", content="You play a text game. Answer with one action."), seen())
    return Example(id=str(place), prompt=prompt, completion=tuple(said[:-1]))


def ours(model: Any, tokenizer: Any, rows: list[Row], out: Path, way: Way = ONE_BY_ONE) -> Any:
    return build_trainer(model, tokenizer, rows, out, SETTINGS, seed=0, way=way)


def plain(model: Any, tokenizer: Any, rows: list[Row], out: Path) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.nn.utils.rnn import pad_sequence
    from transformers import Trainer, TrainingArguments, set_seed

    set_seed(0)
    lora = LoraConfig(r=SETTINGS.rank, lora_alpha=SETTINGS.alpha, target_modules="all-linear", task_type="CAUSAL_LM")

    def padded(batch: list[dict[str, Any]]) -> dict[str, Any]:
        ids, labels = ([torch.tensor(row[key]) for row in batch] for key in ("ids", "labels"))
        masks = [torch.ones_like(one) for one in ids]
        columns = {"input_ids": (ids, tokenizer.eos_token_id), "labels": (labels, IGNORED), "attention_mask": (masks, 0)}
        return {key: pad_sequence(rows, batch_first=True, padding_value=value) for key, (rows, value) in columns.items()}

    arguments = TrainingArguments(**shared(out), remove_unused_columns=False)
    return Trainer(model=get_peft_model(model, lora), args=arguments, train_dataset=dataset(rows), data_collator=padded)


def trl(model: Any, tokenizer: Any, rows: list[Row], out: Path) -> Any:
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    lora = LoraConfig(r=SETTINGS.rank, lora_alpha=SETTINGS.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    arguments = SFTConfig(**shared(out), gradient_checkpointing=False, max_length=None)
    data = dataset(rows).rename_column("ids", "input_ids").select_columns(["input_ids", "labels"])
    return SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer, peft_config=lora)


def shared(out: Path) -> dict[str, Any]:
    quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1, "dataloader_pin_memory": False}
    quiet |= {"bf16": processes.on_gpu()}
    return {"output_dir": str(out), "seed": 0, "num_train_epochs": 1, "per_device_train_batch_size": SETTINGS.batch_size, **quiet}


def dataset(rows: list[Row]) -> Any:
    from datasets import Dataset

    return Dataset.from_list([row._asdict() for row in rows])


TRAINERS: dict[str, Callable[..., Any]] = {"transformers Trainer": plain, "TRL SFTTrainer": trl, "agentevolve": ours}
WAYS = {  # of ours, on a GPU
    "agentevolve": Way(SETTINGS.batch_size, again=False),
    "agentevolve, again": Way(SETTINGS.batch_size, again=True),
    "agentevolve, by row": Way(1, again=True),
}


def estimated(folder: Path, rows: list[Row], way: Way) -> float:
    """GB."""
    from transformers import AutoConfig

    lengths = [(len(row.ids), sum(label != IGNORED for label in row.labels)) for row in rows]
    config = AutoConfig.from_pretrained(folder).to_dict()
    return room.training(room.sizes(config, files.parameters(folder), SETTINGS.rank, lengths, half=True), way) / 1e9


def child(name: str, n: int, base: str) -> dict[str, Any]:
    folder = catalog.training_folder(catalog.resolve(base))
    model, tokenizer = load_base(folder)
    rows = [render(game(place), tokenizer) for place in range(n)]
    way = WAYS.get(name) if processes.on_gpu() else None
    with tempfile.TemporaryDirectory() as out:
        make = functools.partial(ours, way=way) if way else TRAINERS[name]
        trainer = make(model, tokenizer, rows, Path(out))
        cpu, wall = time.process_time(), time.perf_counter()
        trainer.train()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    tokens = sum(len(row.ids) for row in rows)
    learnt = sum(label != IGNORED for row in rows for label in row.labels)
    first = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    cost = {"wall": tokens / wall, "cpu": tokens / cpu, "peak": peak_memory() / 1e9}
    cost |= {"estimate": estimated(folder, rows, way)} if way else {}
    return {"tokens": tokens, "learnt": learnt, "first": first, "base": str(model.dtype).removeprefix("torch."), **cost}


def machine() -> str:
    """The GPU's name, or the processor's kind."""
    import torch

    return str(torch.cuda.get_device_name()) if processes.on_gpu() else platform.machine()


def main(n: int, base: str) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"{machine()}, {os.cpu_count()} cores, {threads} threads, {base}, rank {SETTINGS.rank}, n={n} rows")
    heads = ("tokens/s", "tokens/CPU-s", "peak GB", "estimate", "first loss", "tokens", "learnt", "base")
    print(f"{'trainer':22}" + "".join(f"{head:>14}" for head in heads))
    for name in {**TRAINERS, **(WAYS if processes.on_gpu() else {})}:
        command = [sys.executable, __file__, str(n), base, name]
        made = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
        at = json.loads(made.stdout.splitlines()[-1])
        figures = {"wall": ".0f", "cpu": ".0f", "peak": ".2f", "estimate": ".2f", "first": ".4f"}
        cells = [format(at[figure], form) if figure in at else "–" for figure, form in figures.items()]
        print(f"{name:22}" + "".join(f"{cell:>14}" for cell in (*cells, at["tokens"], at["learnt"], at["base"])), flush=True)


if __name__ == "__main__":
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 32
    named = sys.argv[2] if len(sys.argv) > 2 else "smollm2-135m"
    if len(sys.argv) > 3:
        print(json.dumps(child(sys.argv[3], size, named)))
    else:
        main(size, named)
