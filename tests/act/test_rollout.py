"""Rollouts: every attempt ends up in the journal once, whatever breaks on the way."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from worlds import Corridor, Metered, gist, make_tasks, new_run, use_model, walker

from agentevolve.act.attempt import parts
from agentevolve.act.rollout import rollout
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError, BudgetExceeded, ModelError, Stopped
from agentevolve.records import Trajectory, Usage
from agentevolve.run.folder import Run, read_run
from agentevolve.update import memory_of

RANDOM = Policy(model="random")


def test_results_come_in_order_from_several_workers_and_as_from_one(tmp_path):
    tasks = make_tasks(6, pause=0.002)
    many = rollout(RANDOM, tasks, new_run(tmp_path / "many", workers=5), phase="p", samples=3)
    assert [(one.task.id, one.sample) for one in many] == [(task.id, n) for task in tasks for n in range(3)]
    alone = rollout(RANDOM, tasks, new_run(tmp_path / "one", workers=1), phase="p", samples=3)
    assert [gist(one) for one in many] == [gist(one) for one in alone]
    assert len({one.seed for one in many}) == 18


def test_a_broken_world_and_a_failing_backend_are_data_and_the_others_go_on(tmp_path):
    def moody(messages, choices):
        if "Corridor three" in messages[1].content:
            raise ModelError("overloaded")
        return walker(messages, choices)

    run = new_run(tmp_path)
    policy = use_model(run, ScriptedModel(moody), RANDOM)
    found = rollout(policy, make_tasks(6, "Broken"), run, phase="p")
    assert [one.end for one in found] == ["terminated", "error", "error", "error", "terminated", "error"]
    assert [one.error for one in found[:3]] == ["", "OSError: the ceiling came down", "ModelError: overloaded"]
    assert [len(one.turns) for one in found[:3]] == [3, 1, 0]
    assert [one.solved for one in found] == [True, False, False, False, True, False]
    assert read_run(tmp_path).trajectories == run.trajectories
    assert len(run.trajectories) == 6


def test_a_world_that_cannot_be_made_is_data_too(tmp_path):
    tasks = [*make_tasks(1, "Unopened"), *make_tasks(2)[1:]]
    found = rollout(Policy(model="oracle"), tasks, new_run(tmp_path), phase="p")
    assert [(one.end, one.error) for one in found] == [("error", "OSError: no way in"), ("terminated", "")]


def test_the_same_call_again_makes_no_new_attempts_also_in_a_new_process(tmp_path):
    log = tmp_path / "log"
    tasks = make_tasks(4, log=str(log))

    def again(samples: int) -> list[Trajectory]:
        run = new_run(tmp_path / "run")
        try:
            return rollout(RANDOM, tasks, run, phase="p", samples=samples)
        finally:
            run.close()

    first = again(2)
    assert again(2) == again(2) == first
    assert len(log.read_text().splitlines()) == 8
    more = again(3)
    assert len(log.read_text().splitlines()) == 12
    assert [one for one in more if one.sample < 2] == first


def test_the_same_luck_gives_the_same_seeds_over_phases(tmp_path):
    run, tasks = new_run(tmp_path), make_tasks(4)
    one = rollout(RANDOM, tasks, run, phase="1/val/a", luck="val")
    other = rollout(RANDOM, tasks, run, phase="2/val/b", luck="val")
    alone = rollout(RANDOM, tasks, run, phase="3/acquire")
    assert [a.seed for a in one] == [b.seed for b in other]
    assert [a.turns for a in one] == [b.turns for b in other]
    assert [a.seed for a in one] != [c.seed for c in alone]


def test_the_end_of_the_budget_keeps_what_is_done_and_a_larger_one_goes_on(tmp_path):
    run, tasks = new_run(tmp_path, workers=2), make_tasks(8)
    run.limit(100, None)
    use_model(run, Metered(run, ScriptedModel(walker)), RANDOM)
    with pytest.raises(BudgetExceeded, match="100 tokens"):
        rollout(RANDOM, tasks, run, phase="p")
    kept = dict(run.trajectories)
    assert 1 <= len(kept) <= 3  # an attempt costs 30
    assert all(one.end == "terminated" for one in kept.values())
    assert run.budget.spent.tokens <= 100
    run.close()
    again = new_run(tmp_path, workers=2)
    assert again.trajectories == kept
    assert again.spent().calls == run.budget.spent.calls == 10  # what the stopped attempts cost is not forgotten
    again.limit(1000, None)
    use_model(again, Metered(again, ScriptedModel(walker)), RANDOM)
    found = rollout(RANDOM, tasks, again, phase="p")
    assert all(one.solved for one in found)
    assert {one.id: one for one in found if one.id in kept} == kept


def test_what_the_user_must_mend_stops_the_rollout(tmp_path):
    def refuse():
        raise AgentevolveError("check its API key")

    run = new_run(tmp_path)
    use_model(run, Metered(run, ScriptedModel(walker), refuse), RANDOM)
    with pytest.raises(AgentevolveError, match="check its API key"):
        rollout(RANDOM, make_tasks(4), run, phase="p")
    assert run.trajectories == {}


def test_attempts_run_side_by_side(tmp_path):
    together = threading.Barrier(3, timeout=30)
    run = new_run(tmp_path, workers=3)
    use_model(run, Metered(run, ScriptedModel(walker), together.wait), RANDOM)
    found = rollout(RANDOM, make_tasks(3), run, phase="p")
    assert [one.end for one in found] == ["terminated"] * 3


def test_the_oracle_solves_what_it_is_given(tmp_path):
    found = rollout(Policy(model="oracle"), make_tasks(4, length=5), new_run(tmp_path), phase="p")
    assert [len(one.turns) for one in found if one.solved] == [5] * 4


def test_random_in_a_world_of_free_text_is_the_users_mistake(tmp_path):
    with pytest.raises(AgentevolveError, match="'random' needs an environment that lists"):
        rollout(RANDOM, make_tasks(1, "Free"), new_run(tmp_path), phase="p")


def test_the_runs_own_memory_is_opened_to_be_written_and_anothers_only_read(tmp_path):
    theirs = Run(tmp_path / "theirs", quiet=True)
    held = memory_of(theirs)
    run = Run(tmp_path / "mine", quiet=True)
    _, other = parts(RANDOM.using(memory=str(held.folder)), run)
    with pytest.raises(AgentevolveError, match="opened for reading only"):
        other.add([])
    _, own = parts(RANDOM.using(memory=str(tmp_path / "mine" / "memory")), run)
    own.add([])
    assert own is memory_of(run)
    run.close()
    theirs.close()


CRAMPED = """
import resource, signal, sys
from pathlib import Path
from worlds import make_tasks, new_run
from agentevolve.act.rollout import rollout
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
run = new_run(Path(sys.argv[1]))
memory = run.part("memory", str((run.folder / "memory").resolve()), lambda: None)
memory.add([Entry(id=str(i), kind="demo", key=f"the lamp {i}", text="t", env="worlds:Corridor") for i in range(500)])
for room in (100_000, resource.RLIM_INFINITY):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        rollout(Policy(model="random", memory=str(memory.folder)), make_tasks(2), run, phase="p")
    except AgentevolveError as error:
        print(error)
    print(sorted(one.end for one in run.trajectories.values()))
"""


def test_a_disk_that_fills_stops_the_run_and_loses_no_attempt(tmp_path):
    settings = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    words = [sys.executable, "-c", CRAMPED, str(tmp_path / "run")]
    done = subprocess.run(words, env=settings, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said, before, after = done.stdout.splitlines()
    assert "memory/chroma: the index cannot be used: " in said
    assert (before, "error" in after, after.count("'")) == ("[]", False, 4)


class Outside:
    """What a world does to its attempts from outside: `data["does"]` says what, until the file `data["mended"]` is there."""

    def __init__(self) -> None:
        self._inner = Corridor()

    def reset(self, task):
        self.task = task
        return self._inner.reset(task)

    def step(self, action):
        if not Path(self.task.data["mended"]).exists() and self.task.seed % 2:
            DOES[self.task.data["does"]]()
        return self._inner.step(action)

    def oracle(self, task):
        return self._inner.oracle(task)

    def close(self):
        pass


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


DOES = {"exits": sys.exit, "breaks": lambda: 1 / 0, "fills the disk": full}


def outside(tmp_path: Path, does: str, n: int = 4) -> list:
    data = {"does": does, "mended": str(tmp_path / "mended")}
    return [task.model_copy(update={"env": "test_rollout:Outside", "data": data}) for task in make_tasks(n)]


@pytest.mark.parametrize("does", ["exits", "breaks"])
def test_an_attempt_lost_to_the_world_is_made_again_when_the_run_goes_on_and_stays_paid_for(tmp_path, does):
    tasks = outside(tmp_path, does)
    run = new_run(tmp_path / "run")
    first = rollout(Policy(model="oracle"), tasks, run, phase="run", measuring=True)
    assert [one.end for one in first] == ["terminated", "error"] * 2
    assert set(run.lost) == {first[1].id, first[3].id}
    run.lose(first[1].id, Usage(calls=1, prompt_tokens=5))
    run.close()
    (tmp_path / "mended").touch()
    run = Run(tmp_path / "run", quiet=True)
    second = rollout(Policy(model="oracle"), tasks, run, phase="run", measuring=True)
    assert [one.end for one in second] == ["terminated"] * 4
    assert [second[0], second[2]] == [first[0], first[2]]
    assert not run.lost and run.spent().tokens == 5
    run.close()
    assert Run(tmp_path / "run").attempts() == run.attempts()


def test_what_was_learnt_without_lost_attempts_stays_without_them(tmp_path):
    tasks = outside(tmp_path, "breaks")
    run = new_run(tmp_path / "run")
    first = rollout(Policy(model="oracle"), tasks, run, phase="1/acquire")
    run.close()
    (tmp_path / "mended").touch()
    again = Run(tmp_path / "run", quiet=True)
    assert rollout(Policy(model="oracle"), tasks, again, phase="1/acquire") == first
    assert not again.lost


def test_when_all_attempts_are_lost_the_commonest_reason_is_said(tmp_path):
    tasks = [task for task in outside(tmp_path, "breaks", 8) if task.seed % 2]
    with pytest.raises(AgentevolveError, match=r"run: all 4 attempts were lost: ZeroDivisionError: division by zero \(4 of 4\)"):
        rollout(Policy(model="oracle"), tasks, new_run(tmp_path / "run"), phase="run", measuring=True)


def test_a_full_disk_in_a_world_stops_the_run_and_nothing_is_scored(tmp_path):
    run = new_run(tmp_path / "run", workers=1)
    with pytest.raises(AgentevolveError, match=r"corridor/train/1: this machine: .*No space left"):
        rollout(Policy(model="oracle"), outside(tmp_path, "fills the disk"), run, phase="run")
    assert all(one.task.seed % 2 == 0 and one.solved for one in run.attempts().values())


def test_a_passing_failure_of_the_backend_is_made_again_at_once(tmp_path):
    failures = iter([True, True])

    def moody(messages, choices):
        if "Corridor three" in messages[1].content and next(failures, False):
            raise ModelError("overloaded", 503, Usage(calls=1, prompt_tokens=7), passing=True)
        return walker(messages, choices)

    run = new_run(tmp_path)
    found = rollout(use_model(run, ScriptedModel(moody), RANDOM), make_tasks(4), run, phase="p")
    assert all(one.solved for one in found)
    assert len(run.journal.read()) == 1 + 4 + 2  # what opens a journal, and each making of the one that was lost twice


class Changing(ScriptedModel):
    """A model whose backend refuses, from the fourth call on, what held it to its choices."""

    def complete(self, messages, **asked):
        reply = super().complete(messages, **asked)
        return reply._replace(asked="response_format" if len(self.calls) < 4 else "free text")


def test_attempts_that_were_asked_otherwise_are_made_again_in_a_measurement_alone(tmp_path):
    for phase, measuring, asked in (("1/acquire", False, 2), ("1/val/base", True, 1)):
        run = new_run(tmp_path / phase.replace("/", "-"), workers=1)
        found = rollout(use_model(run, Changing(walker), RANDOM), make_tasks(3), run, phase=phase, measuring=measuring)
        assert len({one.asked for one in found}) == asked
        assert all(one.solved for one in found)
    assert [one.asked for one in found] == [("free text",)] * 3
    assert run.spent().calls == 9 + 3  # the first one was made again


def test_after_an_end_was_asked_for_nothing_new_begins(tmp_path):
    run = new_run(tmp_path, workers=1)

    def ends(messages, choices):
        run.budget.stop()
        return "wait"

    with pytest.raises(Stopped):
        rollout(use_model(run, ScriptedModel(ends), RANDOM), make_tasks(4), run, phase="p")
    assert not run.attempts()


@pytest.mark.slow
def test_an_episode_is_as_long_as_its_world_lets_it_be(tmp_path):
    run = new_run(tmp_path)
    waits = use_model(run, ScriptedModel(lambda messages, choices: "wait"), RANDOM)
    (one,) = rollout(waits, make_tasks(1, limit=5_100), run, phase="p")
    assert (one.end, len(one.turns)) == ("truncated", 5_100)
