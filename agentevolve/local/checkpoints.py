"""Where a training is, on disk now and then: a killed one goes on from there, and ends with the weights that it would have had.

A checkpoint is the trainer's own folder (adapter, optimiser, scheduler, random states); a mark beside it says that it is whole.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentevolve.local.adapter import LoraSettings
from agentevolve.local.rows import Row
from agentevolve.protocols import AgentevolveError
from agentevolve.whole import write_whole

EVERY = 60.0  # seconds between two
MARK = "whole.json"
PACKAGES = ("torch", "transformers", "peft", "trl")


class Checkpoints:
    """The checkpoints of one training in `folder`, about `every` seconds. `seconds` were spent on what the last one holds."""

    def __init__(self, folder: Path, every: float) -> None:
        self.folder, self.every = folder, every
        mark = folder / MARK
        known = json.loads(mark.read_text(encoding="utf-8")) if mark.is_file() else {"step": 0, "seconds": 0.0}
        self.step, self.seconds = int(known["step"]), float(known["seconds"])

    @property
    def last(self) -> str | None:
        """The folder that the trainer goes on from, None at the beginning."""
        return str(self.folder / f"checkpoint-{self.step}") if self.step else None

    def callback(self) -> Any:
        """What makes the trainer save, and marks what it has saved."""
        from transformers import TrainerCallback

        began = saved = time.monotonic()
        before = self.seconds

        class Saving(TrainerCallback):  # type: ignore[misc]
            """Asks for a checkpoint when one is due."""

            def on_step_end(inner, args: Any, state: Any, control: Any, **rest: Any) -> None:
                if time.monotonic() - saved >= self.every and state.global_step < state.max_steps:
                    control.should_save = True

            def on_save(inner, args: Any, state: Any, control: Any, **rest: Any) -> None:
                nonlocal saved
                saved = time.monotonic()
                self.step, self.seconds = state.global_step, before + saved - began
                write_whole(self.folder / MARK, json.dumps({"step": self.step, "seconds": self.seconds}))

        return Saving()


@contextmanager
def checkpoints(out: Path, key: str, every: float = EVERY) -> Iterator[Checkpoints]:
    """Those of the training whose adapter is to be the folder `out`, if it is the one that `key` says, else fresh ones.

    They are gone when it has ended, or cannot be; whoever is killed, asked to end, or out of room leaves them.
    """
    folder = out.with_name(f".{out.name}.{key[:16]}.checkpoints")
    for other in out.parent.glob(f".{out.name}.*.checkpoints"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    found = Checkpoints(folder, every)
    try:
        yield found
    except AgentevolveError:  # the same would happen again
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:
        if not found.step:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def key_of(rows: Sequence[Row], settings: LoraSettings, seed: int, base: str, start: str | None) -> str:
    """What decides a training's weights, as a hash: what is learnt, how, from where, and by which packages."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    told = [settings.model_dump(), seed, base, start, versions]
    found = hashlib.sha256(json.dumps(told).encode())
    for row in rows:
        found.update(repr(row).encode())
    return found.hexdigest()
