"""A run's figures in Trackio, MLflow or Weights & Biases: one `log` behind `track:` of a config.

A tracker's package is no dependency and no extra: who uses one has it. Each seed is a run of the project "agentevolve" there, and
each round a step; what is resumed goes on as another run of the same name. Where a tracker keeps what it is told is for its own
variables to say (TRACKIO_DIR, MLFLOW_TRACKING_URI, WANDB_DIR); W&B stays offline unless WANDB_MODE says otherwise. What a tracker
does wrong is said once, and the run goes on.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from agentevolve.protocols import AgentevolveError
from agentevolve.redact import plain
from agentevolve.run.figures import Figures, keep

PROJECT = "agentevolve"


class Tracker(Protocol):
    """A run at a tracker."""

    def log(self, figures: Figures, step: int) -> None:
        """Keep the figures."""

    def finish(self) -> None:
        """Nothing more comes."""


class Trackio:
    """A run of Trackio: its own store on this machine."""

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        import trackio  # type: ignore[import-not-found, unused-ignore]

        trackio.init(project=PROJECT, name=name, config=dict(settings), embed=False, auto_log_cpu=False)
        self._trackio = trackio

    def log(self, figures: Figures, step: int) -> None:
        """Keep the figures."""
        self._trackio.log(dict(figures), step=step)

    def finish(self) -> None:
        """Write what is left: by the module, or its run stays the current one and says so on stdout at the process's end."""
        self._trackio.finish()


class MLflow:
    """A run of MLflow's, by its client: nothing of it is global."""

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient  # type: ignore[import-not-found, unused-ignore]

        self._client = MlflowClient()
        known = self._client.get_experiment_by_name(PROJECT)
        experiment = known.experiment_id if known else self._client.create_experiment(PROJECT)
        self._id = self._client.create_run(experiment, run_name=name).info.run_id
        for key, value in settings.items():
            self._client.log_param(self._id, key, value if isinstance(value, str) else json.dumps(value))

    def log(self, figures: Figures, step: int) -> None:
        """Keep the figures."""
        for name, value in figures.items():
            self._client.log_metric(self._id, name, value, step=step)

    def finish(self) -> None:
        """Mark it as finished."""
        self._client.set_terminated(self._id)


class Wandb:
    """A run of Weights & Biases, offline."""

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        import wandb  # type: ignore[import-not-found, unused-ignore]

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        quiet = wandb.Settings(silent=True)
        self._run = wandb.init(project=PROJECT, name=name, config=dict(settings), mode=mode, settings=quiet)

    def log(self, figures: Figures, step: int) -> None:
        """Keep the figures."""
        self._run.log(dict(figures), step=step)

    def finish(self) -> None:
        """Write what is left."""
        self._run.finish()


TRACKERS: dict[str, Callable[[str, Mapping[str, Any]], Tracker]] = {"trackio": Trackio, "mlflow": MLflow, "wandb": Wandb}


@contextlib.contextmanager
def tracked(tracker: str, settings: Mapping[str, Any]) -> Iterator[None]:
    """Meanwhile, tell the tracker of that name ("": none) the figures of runs, each with the settings that it was made with.

    Raises AgentevolveError, before anything is done, where its package is not installed.
    """
    if not tracker:
        yield
        return
    try:
        importlib.import_module(tracker)
    except ImportError:
        raise AgentevolveError(f"track: {tracker} is not installed: pip install {tracker}") from None
    book = _Book(tracker, plain(dict(settings)))
    keep(book.log)
    try:
        yield
    finally:
        keep(None)
        book.close()


class _Book:
    """The tracker's run for the one of ours that is under way. What it prints goes to stderr: stdout is for results."""

    def __init__(self, tracker: str, settings: Mapping[str, Any]) -> None:
        self._tracker, self._settings = tracker, settings
        self._folder = Path()
        self._run: Tracker | None = None
        self._failed = False

    def log(self, folder: Path, step: int, figures: Figures) -> None:
        """Keep the figures of the run in the folder."""
        self._try(lambda: self._open(folder).log({_named(name): value for name, value in figures.items()}, step))

    def close(self) -> None:
        """Finish the run."""
        if self._run:
            self._try(self._run.finish)
        self._run = None

    def _open(self, folder: Path) -> Tracker:
        if self._run is None or folder != self._folder:
            self.close()  # seeds come one after another
            place = folder.resolve()
            name = f"{place.parent.name}/{place.name}" if place.name.startswith("seed-") else place.name
            self._folder, self._run = folder, TRACKERS[self._tracker](plain(name), self._settings)
        return self._run

    def _try(self, do: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            with contextlib.redirect_stdout(sys.stderr):
                do()
        except Exception as error:  # another's program and its store: a run that is paid for does not end for them
            self._failed = True
            print(f"track: {self._tracker} keeps nothing more: {' '.join(str(error).split())[:200]}", file=sys.stderr)


def _named(name: str) -> str:
    """The name with no sign that one of them refuses."""
    return re.sub(r"[^\w./ -]", "-", name)
