"""Attempts on the nodes of a Ray cluster: the same attempts as on threads, none twice, whoever dies; every token is charged."""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from faulty import Server, again, learn, makings, outcomes, runs, settled, walk
from faulty import prepared as prepared_hastily
from worlds import gist, make_tasks, new_run, task_file

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

from agentevolve.act.rollout import rollout  # noqa: E402
from agentevolve.policy import Policy, Workers  # noqa: E402
from agentevolve.protocols import AgentevolveError  # noqa: E402
from agentevolve.records import Task  # noqa: E402
from agentevolve.run.folder import Run, read_run  # noqa: E402
from agentevolve.run.shards import SHARDS  # noqa: E402

TESTS = Path(__file__).parents[1]
PROGRAM = "import sys; from agentevolve.cli.main import main; sys.argv[0] = 'agentevolve'; main()"
RANDOM = Policy(model="random")
PATH = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(scope="module")
def cluster():
    """A head and two nodes on this machine, whose workers find the tests' worlds."""
    with pytest.MonkeyPatch.context() as here:
        here.setenv("PYTHONPATH", PATH)
        here.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        for _ in range(2):
            made.add_node(num_cpus=1)
        yield made
        made.shutdown()


@pytest.fixture
def on_ray(cluster, tmp_path):
    """A new run whose attempts are made on the cluster."""
    made: list[Run] = []

    def run(name="ray", count=6, **limits):
        made.append(Run(tmp_path / name, workers=Workers(count=count, on="ray", address=cluster.address), quiet=True))
        made[-1].limit(limits.get("max_tokens"), limits.get("max_usd"))
        return made[-1]

    yield run
    for one in made:
        one.close()


def command(*words: str, place: Path) -> subprocess.Popen[str]:
    """The command line, under way in a process of its own."""
    told = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": place}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *words], env=os.environ | {"PYTHONPATH": PATH}, **told)


def ended(*words: str, place: Path) -> tuple[int, str, str]:
    process = command(*words, place=place)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def prepared(folder, server):
    """Commands whose calls do not time out where nodes start beside them: a call that does is paid for, and in no book."""
    return prepared_hastily(folder, server, timeout=60.0)


def elsewhere(cluster, words):
    """The command line, with its attempts on the cluster."""
    return (*words, *(("--on", "ray", "--address", cluster.address) if words[0] == "run" else spread(cluster)))


def spread(cluster):
    return ("workers.on=ray", f"workers.address={cluster.address}")


def test_the_attempts_are_those_of_threads_and_each_node_makes_some(on_ray, tmp_path):
    tasks = make_tasks(6, pause=0.05)
    run = on_ray()
    found = rollout(RANDOM, tasks, run, phase="p", samples=3)
    alone = rollout(RANDOM, tasks, new_run(tmp_path / "threads", workers=6), phase="p", samples=3)
    assert [gist(one) for one in found] == [gist(one) for one in alone]
    more = rollout(RANDOM, tasks, run, phase="q")
    assert [one.id for one in more] == [f"q/{task.id}/0" for task in tasks]
    assert not (run.folder / SHARDS).exists()
    assert set(makings(run.folder).values()) == {1}


def test_a_rollout_may_be_over_before_every_node_has_begun(on_ray):
    run = on_ray()
    for number in range(4):
        assert len(rollout(RANDOM, make_tasks(1), run, phase=f"p{number}")) == 1
        assert not (run.folder / SHARDS).exists()


@pytest.mark.parametrize("name", ["run", "evolve", pytest.param("compare", marks=pytest.mark.slow)])
def test_a_whole_command_ends_as_on_threads_with_every_token_in_the_books(cluster, tmp_path, name):
    with Server(learn) as calm, Server(learn) as server:
        for place, asked, where in (
            ("calm", calm, lambda words: words),
            ("ray", server, lambda words: elsewhere(cluster, words)),
        ):
            words = where(prepared(tmp_path / place, asked)[name])
            code, _, err = ended(*words, place=tmp_path / place)
            assert (code, err) == (0, err)
            settled(tmp_path / place, asked)
        assert outcomes(tmp_path / "ray") == outcomes(tmp_path / "calm")
        assert set(makings(tmp_path / "ray").values()) == {1}


def test_a_node_that_dies_gives_its_attempts_to_the_others(cluster, on_ray, tmp_path):
    dying = cluster.add_node(num_cpus=1)
    log = tmp_path / "log"
    tasks = make_tasks(8, pause=0.2, log=str(log))
    run = on_ray(count=8)

    def kill():
        while not log.exists():
            time.sleep(0.05)
        cluster.remove_node(dying, allow_graceful=False)

    thread = threading.Thread(target=kill)
    thread.start()
    found = rollout(RANDOM, tasks, run, phase="p", samples=4)
    thread.join()
    assert len({one.id for one in found}) == 32
    assert {one.end for one in found} <= {"terminated", "truncated"}
    assert set(makings(run.folder).values()) == {1}
    assert not (run.folder / SHARDS).exists()


def test_a_limit_holds_for_all_nodes_together(cluster, tmp_path):
    with Server(walk) as server:
        words = elsewhere(cluster, prepared(tmp_path, server)["run"])
        code, _, err = ended(*words, "--max-tokens", "4600", place=tmp_path)
        assert code == 3, err
        (run,) = runs(tmp_path)
        assert 100 < run.spent().tokens <= 4_600
        settled(tmp_path, server)
        assert ended(*words, place=tmp_path)[0] == 0
        settled(tmp_path, server)


def test_what_a_killed_driver_has_left_is_taken_in_also_on_threads(cluster, tmp_path):
    with Server(learn) as calm, Server(learn) as server:
        expected = prepared(tmp_path / "calm", calm)["run"]
        assert ended(*expected, place=tmp_path / "calm")[0] == 0
        words = prepared(tmp_path / "cut", server)["run"]
        process = command(*elsewhere(cluster, words), place=tmp_path / "cut")
        while server.count("") < 20 and process.poll() is None:
            time.sleep(0.02)
        process.kill()
        process.communicate()
        code, _, err = ended(*again(words), place=tmp_path / "cut")
        assert code == 0, err
        assert outcomes(tmp_path / "cut") == outcomes(tmp_path / "calm")
        assert set(makings(tmp_path / "cut").values()) == {1}
        assert not (tmp_path / "cut" / "out" / SHARDS).exists()
        settled(tmp_path / "cut", server, kills=1)


def test_what_happens_on_the_nodes_is_traced_as_it_is_on_threads(cluster, tmp_path, monkeypatch):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    sys.path.append(str(TESTS / "doors"))
    from receiver import Receiver

    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    with Server(walk) as server, Receiver() as receiver:
        words = elsewhere(cluster, prepared(tmp_path, server)["run"])
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        code, _, err = ended(*words, place=tmp_path)
        assert code == 0, err
    made = runs(tmp_path)[0].trajectories
    agents = receiver.named("invoke_agent")
    assert sorted(one.attributes["gen_ai.conversation.id"] for one in agents) == sorted(made)
    assert len(receiver.named("chat")) == sum(len(one.turns) for one in made.values())
    below = {one.trace for one in agents}
    assert all(one.trace in below for one in receiver.spans)


class Counting:
    """Answers as `learn` does, taking its time, and knows how many it answered at once."""

    def __init__(self):
        self.now, self.most, self.lock = 0, 0, threading.Lock()

    def __call__(self, messages):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.2)
        with self.lock:
            self.now -= 1
        return learn(messages)


@pytest.mark.parametrize("killed", [False, True])
def test_asynchronous_rounds_come_to_the_same_as_on_threads_also_when_the_driver_dies(cluster, tmp_path, killed):
    ahead, counting = ("asynchronous=true", "gate.rule=none"), Counting()
    with Server(learn) as calm, Server(counting) as server:
        expected = (*prepared(tmp_path / "calm", calm)["evolve"], *ahead)
        assert ended(*expected, place=tmp_path / "calm")[0] == 0
        words = elsewhere(cluster, (*prepared(tmp_path / "ray", server)["evolve"], *ahead))
        process, journal = command(*words, place=tmp_path / "ray"), tmp_path / "ray" / "out" / "journal.jsonl"
        if killed:
            until = time.monotonic() + 120
            while not (journal.exists() and b'"phase":"3/acquire"' in journal.read_bytes()) and process.poll() is None:
                assert time.monotonic() < until
                time.sleep(0.01)
            process.kill()
            process.communicate()
            assert b'"gate 2/val"' not in journal.read_bytes()
            process = command(*again(words), place=tmp_path / "ray")
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert outcomes(tmp_path / "ray") == outcomes(tmp_path / "calm")
        assert set(makings(tmp_path / "ray").values()) == {1}
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        order = [line["data"]["phase"] if line["kind"] == "trajectory" else line.get("name", "") for line in lines]
        assert order.index("3/acquire") < order.index("gate 2/val")
        assert killed or counting.most <= 4  # of the workers; what a killed driver's nodes have under way still ends
        assert not (tmp_path / "ray" / "out" / SHARDS).exists()
        settled(tmp_path / "ray", server, kills=int(killed))


def test_a_limit_holds_for_all_nodes_and_both_phases_of_asynchronous_rounds(cluster, tmp_path):
    with Server(learn) as calm, Server(Counting()) as server:
        ahead = ("asynchronous=true", "gate.rule=none")
        assert ended(*prepared(tmp_path / "calm", calm)["evolve"], *ahead, place=tmp_path / "calm")[0] == 0
        words = elsewhere(cluster, (*prepared(tmp_path / "ray", server)["evolve"], *ahead))
        limit = sum(run.spent().tokens for run in runs(tmp_path / "calm")) * 2 // 3
        code, _, err = ended(*words, f"max_tokens={limit}", place=tmp_path / "ray")
        assert code == 3, err
        (run,) = runs(tmp_path / "ray")
        spent = run.spent()
        assert limit // 3 < spent.tokens - spent.embedded_tokens <= limit
        settled(tmp_path / "ray", server)
        code, _, err = ended(*again(words), place=tmp_path / "ray")
        assert code == 0, err
        assert outcomes(tmp_path / "ray") == outcomes(tmp_path / "calm")
        settled(tmp_path / "ray", server)


@pytest.mark.slow
def test_twenty_nodes_and_ten_drivers_die_and_nothing_is_lost_doubled_or_unpaid(cluster, tmp_path):
    """One run after the other, until so many have died; each must end as it does on threads."""
    luck, nodes, drivers, done, told = random.Random(0), 0, 0, 0, []
    more = ("--limit", "40", "--samples", "6")
    extra = [cluster.add_node(num_cpus=1) for _ in range(2)]
    with Server(learn) as calm:
        expected = prepared(tmp_path / "calm", calm)["run"] + more
        assert ended(*expected, place=tmp_path / "calm")[0] == 0
    while nodes < 20 or drivers < 10:
        place = tmp_path / f"cut-{done}"
        with Server(learn) as server:
            words = elsewhere(cluster, prepared(place, server)["run"] + more)
            process = command(*words, place=place)
            while process.poll() is None:
                enough = len(server.served) + luck.randint(1, 60)
                while len(server.served) < enough and process.poll() is None:
                    time.sleep(0.02)
                if process.poll() is None and luck.random() < 2 / 3 and nodes < 20:
                    cluster.remove_node(extra.pop(0), allow_graceful=False)
                    extra.append(cluster.add_node(num_cpus=1))
                    nodes += 1
                elif process.poll() is None and drivers < 10:
                    process.kill()
                    process.communicate()
                    drivers += 1
                    process = command(*words, place=place)
            _, err = process.communicate()
            assert process.returncode == 0, err
            assert outcomes(place) == outcomes(tmp_path / "calm")
            assert set(makings(place).values()) == {1}
            (run,) = runs(place)
            assert run.spent().tokens >= server.reported()
            assert not (run.folder / SHARDS).exists()
            told.append({"attempts": len(run.attempts()), "charged": run.spent().tokens, "given": server.reported()})
        done += 1
    print(json.dumps({"nodes killed": nodes, "drivers killed": drivers, "runs": told}))
    for one in extra:
        cluster.remove_node(one)


# --- what the user has to mend ---


def told(place, *words):
    """The one line of a command that ends with it."""
    code, _, err = ended("run", "corridor.yaml", "--model", "random", "--quiet", "--out", "out", *words, place=place)
    assert code == 2, err
    assert err.count("\n") == 1, err
    return err


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:99999", "no-such-host.invalid:6379"])
def test_a_head_that_is_not_there_is_one_line_at_once(tmp_path, address):
    task_file(tmp_path)
    assert address in told(tmp_path, "--on", "ray", "--address", address)


def test_an_address_without_ray_and_an_unknown_kind_of_workers_are_one_line(tmp_path):
    task_file(tmp_path)
    assert "on=ray" in told(tmp_path, "--address", "auto")
    said = told(tmp_path, "--on", "spark")
    assert "threads" in said and "ray" in said


def test_without_ray_the_extra_is_named(tmp_path):
    task_file(tmp_path)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("raise ImportError('not here')")
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM, "run", "corridor.yaml", "--model", "random", "--on", "ray", "--out", "out"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), PATH])},
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == 2
    assert 'pip install "agentevolve[ray]"' in said.stderr.splitlines()[-1]


def test_a_node_with_other_code_is_named_and_nothing_is_lost(tmp_path):
    """The node's workers find a copy of the package in which one line is another."""
    package = Path(__import__("agentevolve").__file__).parent
    shutil.copytree(package, tmp_path / "other" / "agentevolve", symlinks=False)
    (tmp_path / "other" / "agentevolve" / "survey.py").open("a").write("# another\n")
    with pytest.MonkeyPatch.context() as here:
        here.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "other"), PATH]))
        here.setenv("RAY_USAGE_STATS_ENABLED", "0")
        other = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        task_file(tmp_path)
        said = told(tmp_path, "--on", "ray", "--address", other.address)
        assert "has other code" in said
        assert ended("run", "corridor.yaml", "--model", "random", "--quiet", "--out", "out", place=tmp_path)[0] == 0
    finally:
        other.shutdown()


def test_a_shard_that_cannot_be_written_stops_the_run_and_what_was_made_is_kept(on_ray):
    tasks = [*make_tasks(3), Task(id="full", env="worlds:Full", split="train", seed=1)]
    run = on_ray(count=1)
    with pytest.raises(AgentevolveError, match="cannot write"):
        rollout(RANDOM, tasks, run, phase="p")
    assert "p/full/0" in read_run(run.folder).trajectories
