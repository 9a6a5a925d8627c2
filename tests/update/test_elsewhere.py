"""A training where the cluster's GPUs are learns what one here learns, whoever dies. These nodes only say that they have GPUs."""

import os
import re
import threading
import time
from pathlib import Path

import psutil
import pytest
import tiny
import torch
from safetensors.torch import load_file

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

from agentevolve.local.adapter import LoraSettings, read_adapter  # noqa: E402
from agentevolve.policy import Policy, Workers  # noqa: E402
from agentevolve.protocols import AgentevolveError, BudgetExceeded, Stopped  # noqa: E402
from agentevolve.run.folder import Run  # noqa: E402
from agentevolve.update import elsewhere, finetune  # noqa: E402

pytestmark = pytest.mark.slow  # a cluster of its own for each test
TESTS = Path(__file__).parents[1]
SETTINGS = LoraSettings(rank=4, epochs=2, batch_size=4, learning_rate=5e-3)
ROWS = [tiny.example(f"Where {n}?", "north", "take" * (n + 1)) for n in range(8)]
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def cluster():
    """A head without GPUs."""
    with pytest.MonkeyPatch.context() as here:
        here.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]))
        here.setenv("RAY_USAGE_STATS_ENABLED", "0")
        here.setenv("OMP_NUM_THREADS", "1")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
        yield made
        made.shutdown()


@pytest.fixture
def base(tmp_path):
    """A tiny llama."""
    torch.set_num_threads(1)
    return Policy(model=f"local/{tiny.folder(tmp_path / 'tiny')}", threads=1)


@pytest.fixture
def on_ray(cluster, tmp_path):
    """A new run on the cluster."""
    run = Run(tmp_path / "ray", workers=Workers(count=1, on="ray", address=cluster.address))
    yield run
    run.close()


def weights(policy):
    return load_file(Path(policy.adapter) / WEIGHTS)


def trainings():
    """The processes that train."""
    return [one for one in psutil.process_iter(["cmdline"]) if elsewhere.CHILD in (one.info["cmdline"] or [])]


def settle():
    """Wait until no process trains any more."""
    end = time.monotonic() + 30
    while trainings() and time.monotonic() < end:
        time.sleep(0.1)
    assert trainings() == []


def left(run):
    return sorted(path.name for path in (run.folder / "adapters").iterdir())


def test_a_node_with_a_gpu_learns_what_the_driver_learns_and_without_one_the_driver_does(cluster, on_ray, base, capsys):
    here = finetune(base, ROWS, on_ray, "here", SETTINGS)
    assert "here: fine-tuning on 8 examples (0/4)" in capsys.readouterr().err
    cluster.add_node(num_cpus=1, num_gpus=1)
    there = finetune(base, ROWS, on_ray, "there", SETTINGS)
    said = capsys.readouterr().err
    assert re.search(r"there: fine-tuning on 8 examples \([\d.]+, 1 GPU\) \(4/4\) done", said)
    again = finetune(base, ROWS, on_ray, "again", SETTINGS, start=there.adapter)
    one, other = read_adapter(Path(here.adapter)), read_adapter(Path(there.adapter))
    assert (one.base, one.examples, one.tokens, one.steps) == (other.base, other.examples, other.tokens, other.steps)
    # the rows come in another order: of another name, another seed
    assert other.loss_first == pytest.approx(one.loss_first, rel=0.2)
    assert read_adapter(Path(again.adapter)).start
    assert read_adapter(Path(again.adapter)).loss_first < other.loss_first
    assert left(on_ray) == ["again", "here", "there"]
    assert on_ray.costs()["update"].trained_tokens == 3 * one.tokens
    settle()


def test_it_has_the_very_weights_of_a_training_here(cluster, on_ray, base, tmp_path):
    cluster.add_node(num_cpus=1, num_gpus=1)
    there = finetune(base, ROWS, on_ray, "round-1", SETTINGS)
    with_threads = Run(tmp_path / "threads", quiet=True)
    here = finetune(base, ROWS, with_threads, "round-1", SETTINGS)
    with_threads.close()
    one, other = weights(here), weights(there)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_node_with_three_gpus_trains_in_as_many_processes_as_share_a_step_evenly(cluster, on_ray, base, capsys):
    cluster.add_node(num_cpus=1, num_gpus=3)
    there = finetune(base, ROWS, on_ray, "round-1", SETTINGS)
    assert re.search(r"\([\d.]+, 2 GPUs\) \(4/4\) done", capsys.readouterr().err)
    assert read_adapter(Path(there.adapter)).steps == 4
    assert left(on_ray) == ["round-1"]


def test_what_cannot_be_paid_for_or_fails_there_is_one_line_and_leaves_nothing(cluster, on_ray, base):
    cluster.add_node(num_cpus=1, num_gpus=1)
    on_ray.limit(100, None)
    with pytest.raises(BudgetExceeded, match="could pass the limit of 100 tokens"):
        finetune(base, ROWS, on_ray, "round-1", SETTINGS)
    on_ray.limit(None, None)
    with pytest.raises(AgentevolveError, match="not an adapter"):
        finetune(base, ROWS, on_ray, "round-1", SETTINGS, start=str(on_ray.folder))
    far = SETTINGS.model_copy(update={"max_length": 8})
    with pytest.raises(AgentevolveError, match="no answer within 8 tokens"):
        finetune(base, ROWS, on_ray, "round-1", far)
    settle()
    assert left(on_ray) == []
    assert not [name for name in on_ray.facts if "train" in name]


def when_learning(run, do):
    """Do something once the training has begun to write."""

    def wait():
        while not (run.folder / "adapters" / ".round-1.partial").exists():
            time.sleep(0.02)
        time.sleep(1.0)
        do()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_when_its_node_dies_another_goes_on(cluster, on_ray, base, capsys):
    first = cluster.add_node(num_cpus=1, num_gpus=2)
    cluster.add_node(num_cpus=1, num_gpus=1)
    long = SETTINGS.model_copy(update={"epochs": 100, "batch_size": 3})
    thread = when_learning(on_ray, lambda: cluster.remove_node(first, allow_graceful=False))
    made = finetune(base, ROWS, on_ray, "round-1", long)
    thread.join()
    assert read_adapter(Path(made.adapter)).steps == 300
    said = capsys.readouterr().err
    assert re.search(r"round-1: the node at [\d.]+ has died; the training goes on from its last checkpoint", said)
    settle()
    assert left(on_ray) == ["round-1"]


def test_a_run_that_is_asked_to_end_ends_the_training_too(cluster, on_ray, base):
    cluster.add_node(num_cpus=1, num_gpus=1)
    long = SETTINGS.model_copy(update={"epochs": 1000, "batch_size": 1})
    thread = when_learning(on_ray, on_ray.budget.stop)
    with pytest.raises(Stopped):
        finetune(base, ROWS, on_ray, "round-1", long)
    thread.join()
    settle()
    assert not {"round-1", ".round-1.partial"} & set(left(on_ray))
