"""`python -m agentevolve.update.launched JOB`: one training, or one process of it, for the actor that has started it.

What it says, it prints as reports; before it learns it waits for a word, and it ends when its standard input does: whoever
started it has died then, or wants it to end. A checkpoint is left, from which the next one goes on.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import sys
import threading
import time
from pathlib import Path

from agentevolve.local.processes import first
from agentevolve.local.train import train_lora
from agentevolve.models.lite import base_of
from agentevolve.protocols import AgentevolveError
from agentevolve.update.elsewhere import GO, Job, Said, report
from agentevolve.update.weights import rendered

UNWINDING = 10.0  # seconds in which a training that is interrupted tidies up


def main(file: str) -> None:
    """Do the job in the file."""
    job = Job.model_validate_json(Path(file).read_text(encoding="utf-8"))
    base = base_of(job.model)
    if base.identity != job.base:
        raise AgentevolveError(f"{job.model}: other weights lie here than on the driver's machine")
    made = rendered(base, job.rows, job.settings, job.threads)

    def begin(tokens: int) -> None:
        _tell({"tokens": tokens, "examples": len(made.rows.rows), "steps": made.steps, "lost": made.lost})
        if first():
            if sys.stdin.readline() != GO:
                raise AgentevolveError("it was not to begin")
            threading.Thread(target=_end_with_input, daemon=True).start()

    train_lora(
        made.folder,
        made.rows,
        Path(job.out),
        job.settings,
        seed=job.seed,
        base=base.identity,
        start=Path(job.start) if job.start else None,
        afford=begin,
        progress=lambda step, steps, loss: _tell({"loss": loss}),
    )
    _tell({"done": True})


def _tell(said: Said) -> None:
    if first():
        report(said)


def _end_with_input() -> None:
    sys.stdin.read()
    _thread.interrupt_main()
    time.sleep(UNWINDING)
    os._exit(1)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except AgentevolveError as error:
        with contextlib.suppress(OSError):  # nobody listens any more
            _tell({"error": str(error)[:1000], "kind": type(error).__name__})
        sys.exit(2)
