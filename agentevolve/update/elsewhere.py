"""A training on the node of the run's Ray cluster that has GPUs: in as many processes as it has of them, started by accelerate.

The run's folder is where all meet: the job lies there, and there come the checkpoints and the adapter. So a training whose node
dies goes on from its last checkpoint on another node that has GPUs. Where none has, the driver trains.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from pydantic import BaseModel, ConfigDict

from agentevolve.act.node import STALE, check_seen, version, written
from agentevolve.act.nodes import ALONE, DEATHS, KINDS, Gpus, NodeDied, Nodes, cluster
from agentevolve.local.adapter import LoraSettings
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Example
from agentevolve.run.folder import Run
from agentevolve.run.progress import progress
from agentevolve.whole import write_whole

CHILD = "agentevolve.update.launched"
LAUNCH = (
    "--num_machines",
    "1",
    "--mixed_precision",
    "no",
    "--dynamo_backend",
    "no",
    "--main_process_port",
    "0",
    "--num_processes",
)
PATIENCE = 30.0  # seconds until somebody is told that the GPUs are in use
LEAVING = 4.0  # seconds in which a training that is to end does so by itself
SETTLE = 2.0  # seconds between two looks for a node in the place of a dead one
MARK = "agentevolve: "  # how a line begins that is a report
GO = "go\n"  # what the training waits for once it has told how much it is going to read

Said = dict[str, Any]


class Job(BaseModel):
    """What is to be trained, with absolute paths; `base` is the identity of the model's weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    base: str
    rows: tuple[Example, ...]
    settings: LoraSettings
    seed: int
    out: str
    start: str | None
    threads: int | None


def train_elsewhere(job: Job, run: Run) -> bool:
    """Train where the cluster has GPUs, into the job's `out`; False if no node has any.

    Raises AgentevolveError as a training here does, and when node after node dies of it.
    """
    nodes, name = cluster(run), Path(job.out).name
    place = nodes.gpus()
    for _ in range(DEATHS):
        if place is None:
            return False
        try:
            with _lying(job) as file, contextlib.closing(_Followed(name, run, nodes, place, _share(job, place))) as training:
                training.follow(file)
            end = time.monotonic() + STALE
            while not Path(job.out).is_dir() and time.monotonic() < end:
                run.budget.rest(0.2)
            return True
        except NodeDied:
            print(f"{name}: the node at {place.address} has died; the training goes on from its last checkpoint", file=sys.stderr)
            place = _another(nodes, run)
    raise AgentevolveError(f"{name}: {DEATHS} nodes have died of the training; what is done is kept")


def _another(nodes: Nodes, run: Run) -> Gpus:
    """A node that has GPUs: until a dead one is known to be dead takes a moment, and another may join."""
    end = time.monotonic() + ALONE
    while time.monotonic() < end:
        run.budget.rest(SETTLE)
        if place := nodes.gpus():
            return place
    raise AgentevolveError("no node of the Ray cluster has a GPU any more; what is done is kept")


def _share(job: Job, place: Gpus) -> int:
    """How many of the node's GPUs can share out the rows of a step evenly."""
    return max(number for number in range(1, place.number + 1) if job.settings.batch_size % number == 0)


@contextlib.contextmanager
def _lying(job: Job) -> Iterator[Path]:
    """The job as a file that the node sees."""
    out = Path(job.out)
    file = out.with_name(f".{out.name}.job.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, job.model_dump_json())
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


class _Followed:
    """The driver's side of a training: what the node says of it, shown and heeded. It ends with `close`, if not before."""

    def __init__(self, name: str, run: Run, nodes: Nodes, place: Gpus, number: int) -> None:
        self._name, self._run, self._nodes, self._place, self._number = name, run, nodes, place, number
        self._shown = contextlib.ExitStack()
        self._advance: Callable[[str], None] = lambda note: None
        self._going = False
        self._actor = nodes.put(Training, place, number)

    def follow(self, file: Path) -> None:
        """Wait for the end of the training whose job the file holds. Raises what it raised, or that its node has died."""
        asked = {"version": version(), "job": str(file), "seen": written(file), "processes": self._number}
        if wrong := self._wait(self._actor.begin.remote(json.dumps(asked))):
            raise AgentevolveError(f"{self._place.address}: {wrong}")
        self._going = True
        while True:
            for said in self._wait(self._actor.said.remote()):
                if "error" in said:
                    raise KINDS.get(said["kind"], AgentevolveError)(said["error"])
                if "tokens" in said:
                    self._begin(said)
                if "loss" in said:
                    self._advance(f"loss {said['loss']:.2f}")
                if "done" in said:
                    return

    def close(self) -> None:
        """End the training, if it has begun and not ended: it is asked first, so that it leaves a checkpoint alone."""
        self._shown.close()
        if self._going:
            self._nodes.answered(self._actor.leave.remote(), LEAVING)
        self._nodes.end(self._actor)

    def _begin(self, said: Said) -> None:
        """Let it learn, if what it is going to read can be paid for."""
        self._run.budget.afford(said["tokens"])
        if said["lost"]:
            print(f"{self._name}: {said['lost']}", file=sys.stderr)
        where = f"{self._place.address}, {self._number} GPU{'s' * (self._number > 1)}"
        what = f"{self._name}: fine-tuning on {said['examples']} examples ({where})"
        self._advance = self._shown.enter_context(progress(what, said["steps"], quiet=self._run.quiet))
        self._wait(self._actor.go.remote())

    def _wait(self, asked: Any) -> Any:
        """The answer. Raises Stopped when the run is to end, also where answers keep coming at once."""
        self._run.budget.alive()
        began, told = time.monotonic(), False
        while not self._nodes.answered(asked):
            self._run.budget.alive()
            if not told and time.monotonic() - began > PATIENCE:
                told = True
                print(f"{self._name}: the GPUs of {self._place.address} are in use; it waits for them", file=sys.stderr)
        return self._nodes.answer(asked)


class Training:
    """The actor on the node: a training under way in processes of their own, which end when it does.

    `begin` starts it, `said` is what it has told since, `go` lets it begin to learn, `leave` end.
    """

    def __init__(self) -> None:
        self._said: SimpleQueue[Said] = SimpleQueue()
        self._process: subprocess.Popen[str] | None = None

    def begin(self, told: str) -> str:
        """Start the processes; what is wrong, if anything is."""
        asked = json.loads(told)
        if asked["version"] != version():
            return (
                f"has other code: agentevolve {version()}, and the driver's is {asked['version']}; install the same on every node"
            )
        try:
            check_seen({asked["job"]: asked["seen"]})
        except AgentevolveError as error:
            return str(error)
        words = [*_launch(asked["processes"]), CHILD, asked["job"]]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        threading.Thread(target=self._listen, daemon=True).start()
        return ""

    def said(self, patience: float = 1.0) -> list[Said]:
        """What is new, after at most so many seconds."""
        found: list[Said] = []
        with contextlib.suppress(Empty):
            found.append(self._said.get(timeout=patience))
            while True:
                found.append(self._said.get_nowait())
        return found

    def go(self) -> None:
        """Let it learn."""
        assert self._process and self._process.stdin
        self._process.stdin.write(GO)
        self._process.stdin.flush()

    def leave(self) -> None:
        """Let it end by itself, which it does when its input does."""
        if self._process and self._process.stdin:
            self._process.stdin.close()
            self._process.wait()

    def _listen(self) -> None:
        """Take what the processes print: their reports, and among all else, for the case that they fail, the last words."""
        assert self._process and self._process.stdout
        last, over = "", False
        for line in self._process.stdout:
            if (said := heard(line)) is not None:
                self._said.put(said)
                over = over or "done" in said or "error" in said
            elif line.strip():
                last = line.strip()[:300]
        code = self._process.wait()
        if not over:
            self._said.put({"error": f"the training ended with code {code}: {last}", "kind": ""})


def report(said: Said) -> None:
    """Say something, in a line of its own, to the actor that listens."""
    print(f"\n{MARK}{json.dumps(said)}", flush=True)


def heard(line: str) -> Said | None:
    """What a line reports; None if it is none of `report`, or what another process has printed went in between."""
    try:
        return dict(json.loads(line[len(MARK) :])) if line.startswith(MARK) else None
    except ValueError:
        return None


def _launch(number: int) -> Sequence[str]:
    """How so many processes are started that train together."""
    if number == 1:
        return [sys.executable, "-m"]
    import torch

    there = [] if torch.cuda.is_available() else ["--cpu"]
    return [sys.executable, "-m", "accelerate.commands.launch", *there, *LAUNCH, str(number), "--module"]
