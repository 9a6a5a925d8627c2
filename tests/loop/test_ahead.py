"""Asynchronous rounds over a corridor: what is made ahead, by whom, what it may spend, and what a cut run comes to."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from faulty import Server, again, learn, makings, outcomes, prepared, runs, settled
from test_evolve import killed_config, kinds, made, same_memory, scripted, start, whole_lines
from worlds import Corridor, Metered, gist, learner, make_tasks, new_run, task_file, use_model

from agentevolve.act.rollout import rollout
from agentevolve.config import Config
from agentevolve.loop.evolve import check as checked
from agentevolve.loop.evolve import evolve_one
from agentevolve.loop.policies import BEGUN, take_back
from agentevolve.loop.reports import reports, verdicts
from agentevolve.memory import read_entries
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError, BudgetExceeded
from agentevolve.refine import demos
from agentevolve.run.folder import JOURNAL, Run, read_run
from agentevolve.run.permits import Permits
from agentevolve.update import remember

TESTS = Path(__file__).parents[1]
PROGRAM = "import sys; from agentevolve.cli.main import main; sys.argv[0] = 'agentevolve'; main()"


def asynchronous(path: Path, **changes) -> Config:
    """A small evolution of three rounds, each of which is promoted."""
    values = {"asynchronous": True, "rounds": 3, "test": {"tasks": 0}, "gate": {"rule": "none"}}
    return made(path, **values | changes)


def acquired(run: Run, number: int) -> list:
    return [one for one in run.trajectories.values() if one.phase.startswith(f"{number}/acquire")]


def in_place(run: Run) -> list[int]:
    """The round of the policy with which each round began."""
    return [run.facts[f"{BEGUN}{number}"]["round"] for number in range(1, 1 + sum(one.startswith(BEGUN) for one in run.facts))]


def stale_by_one_at_most(run: Run) -> None:
    """Each attempt to learn from is by the policy that its round began with, or by the one before that."""
    places = in_place(run)
    for number, place in enumerate(places, 1):
        allowed = {place, places[max(0, number - 2)]}
        assert {one.policy.round for one in acquired(run, number)} <= allowed


def test_each_round_but_the_first_learns_first_from_the_policy_of_the_round_before(tmp_path):
    run = scripted(new_run(tmp_path / "run"), learner)
    evolve_one(asynchronous(task_file(tmp_path, length=2)), run)
    run.close()
    assert in_place(run) == [0, 1, 2]
    assert [{one.policy.round for one in acquired(run, number)} for number in (1, 2, 3)] == [{0}, {0}, {1}]
    assert [{one.policy.memory for one in acquired(run, number)} for number in (2, 3)] == [{None}, {"as of round 1"}]
    stale_by_one_at_most(run)
    assert [run.facts[f"{BEGUN}{number}"]["ahead"] for number in (1, 2, 3)] == [{}, {"0": 18}, {"1": 18}]
    said = [line for line in verdicts(run, False) if line.startswith("ahead")]
    assert said == [f"ahead, round {n}: 18 attempts made before it began, by the policy of the round before" for n in (2, 3)]
    assert reports(run.folder, [run]).verdicts[-2:] == said
    # nothing ahead of the last round's end, and nothing of a fourth
    assert not acquired(run, 4) and not [one for one in threading.enumerate() if one.name != "MainThread" and not one.daemon]


def test_what_is_not_promoted_leaves_nothing_stale(tmp_path):
    run = scripted(new_run(tmp_path / "run"), lambda messages, choices: "wait")
    evolve_one(asynchronous(task_file(tmp_path, length=2), gate={"rule": "mean"}), run)
    run.close()
    assert in_place(run) == [0, 0, 0]
    assert verdicts(run, True)[-1] == (
        "ahead, run, round 3: 18 attempts made before it began, by the policy that was still in place when it began"
    )


def test_switched_off_it_changes_nothing(tmp_path):
    told = {}
    for name, on in (("off", False), ("on", True)):
        run = scripted(new_run(tmp_path / name), learner)
        evolve_one(asynchronous(task_file(tmp_path, length=2), rounds=2, asynchronous=on), run)
        run.close()
        told[name] = run
    off = told["off"]
    assert off.permits is None and not [name for name in off.facts if name.startswith(BEGUN)]
    assert [{one.policy.round for one in acquired(off, number)} for number in (1, 2)] == [{0}, {1}]
    order = kinds(tmp_path / "off")
    assert order.index("2/acquire") > order.index("gate 1/val")
    # the ids and the luck of the attempts are the same, and those of the first round are the very same
    assert sorted(off.trajectories) == sorted(told["on"].trajectories)
    first = [{one.id: gist(one) for one in run.trajectories.values() if one.phase[0] != "2"} for run in told.values()]
    assert first[0] == first[1]


def talker(messages, choices):
    """Acts as `learner` does, and has something to say when it is asked for words."""
    return learner(messages, choices) if choices else "1. Walk towards the lamp, and look where you stand."


IN_CONTEXT = (
    *("ace", "autoguide", "dynamic_cheatsheet", "expel", "memento", "memory_of_thought", "reasoning_bank", "reflexion"),
    *("self_demos", "self_refine", "tran", "workflow_memory"),
)


@pytest.mark.parametrize("method", IN_CONTEXT)
def test_methods_know_nothing_of_it(tmp_path, method):
    run = scripted(new_run(tmp_path / "run"), talker)
    config = asynchronous(
        task_file(tmp_path, length=2, limit=4), method=method, settings={}, val={"tasks": 2}, train={"tasks": 4}
    )
    evolve_one(config, run)
    run.close()
    ahead = [run.facts[f"{BEGUN}{number}"]["ahead"] for number in (1, 2, 3)]
    assert ahead[0] == {} and all(ahead[1:])
    stale_by_one_at_most(run)
    assert set(makings(tmp_path / "run").values()) == {1}
    recalled = [(one, read_entries(run.folder / "memory")) for one in acquired(run, 3) if one.recalled and one.policy.round == 1]
    for one, entries in recalled:  # nothing that the round before has added
        assert {entry.round for entry in entries if entry.id in one.recalled} <= {0, 1}


def patient(policy, tasks, run, *, samples: int = 2):
    """Acquires, then learns only when some attempts of the next round are made: one round after the other they never would be."""
    attempts = rollout(policy, tasks, run, phase=f"{run.round}/acquire", samples=samples)
    until = time.monotonic() + 60
    while run.round < 3 and len(acquired(run, run.round + 1)) < 4:
        assert time.monotonic() < until, "nothing is made ahead"
        time.sleep(0.01)
    return remember(policy, demos(attempts, run.round), run)


def test_attempts_are_made_while_the_round_before_still_learns(tmp_path):
    path = task_file(tmp_path, length=2, pause=0.01)
    run = scripted(new_run(tmp_path / "run"), learner)
    evolve_one(asynchronous(path, method="test_ahead:patient", settings={}), run)
    run.close()
    order = kinds(tmp_path / "run")
    for number in (2, 3):
        assert order.index(f"{number}/acquire") < order.index(f"gate {number - 1}/val")
    stale_by_one_at_most(run)


# --- the workers ---


class Crowded(Corridor):
    """A corridor that counts who is in one like it at the same time."""

    inside, most = 0, 0
    lock = threading.Lock()

    def reset(self, task):
        with self.lock:
            type(self).inside += 1
            type(self).most = max(self.most, self.inside)
        return super().reset(task)

    def close(self):
        with self.lock:
            type(self).inside -= 1


def test_both_phases_together_have_no_more_attempts_under_way_than_there_are_workers(tmp_path):
    path = task_file(tmp_path, length=2, pause=0.005)
    path.write_text(path.read_text().replace("worlds:Corridor", "test_ahead:Crowded"))
    Crowded.most = 0
    run = scripted(new_run(tmp_path / "run", workers=3), learner)
    evolve_one(asynchronous(path), run)
    run.close()
    assert Crowded.most == 3 and Crowded.inside == 0
    order = kinds(tmp_path / "run")
    assert order.index("2/acquire") < order.index("gate 1/val")


def test_the_round_under_way_goes_first(tmp_path):
    permits, order = Permits(1), []
    waiting = [threading.Event() for _ in range(3)]

    def attempt(name, ahead, mine):
        def alive():
            mine.set()

        with permits.one(alive, ahead=ahead):
            order.append(name)

    with permits.one(lambda: None, ahead=True):
        threads = []
        for name, ahead, mine in (("ahead", True, waiting[0]), ("now", False, waiting[1]), ("now too", False, waiting[2])):
            threads.append(threading.Thread(target=attempt, args=(name, ahead, mine)))
            threads[-1].start()
            assert mine.wait(10)
    for thread in threads:
        thread.join()
    assert sorted(order[:2]) == ["now", "now too"] and order[2] == "ahead"


def test_who_waits_is_told_when_nothing_new_may_begin():
    permits = Permits(1)

    def over():
        raise AgentevolveError("over")

    with permits.one(lambda: None, ahead=False), pytest.raises(AgentevolveError, match="over"), permits.one(over, ahead=True):
        raise AssertionError("it was let in")
    with permits.one(over, ahead=True):  # and the place that it did not get is free
        pass


# --- limits and errors ---


def test_a_limit_holds_for_both_phases_and_a_larger_one_goes_on_with_every_attempt_once(tmp_path):
    path = task_file(tmp_path, length=2, limit=4)
    settings = {"samples": 3, "epsilon": [0.0], "reflections": 0, "rows": 0}

    def metered(limit: int | None) -> Run:
        config = asynchronous(path, settings=settings, max_tokens=limit)
        run = new_run(tmp_path / "run")
        use_model(run, Metered(run, ScriptedModel(learner), before=lambda: time.sleep(0.001)), Policy(model="random"))
        try:
            evolve_one(config, run)
        finally:
            run.close()
            spent = run.spent()  # what is embedded is booked when it is done, asynchronous or not
            assert limit is None or spent.tokens - spent.embedded_tokens <= limit
        return run

    for limit in (400, 1500, 2600):
        with pytest.raises(BudgetExceeded, match=f"limit of {limit} tokens"):
            metered(limit)
        assert not [one for one in threading.enumerate() if one.name != "MainThread" and not one.daemon]
    run = metered(None)
    alone = new_run(tmp_path / "alone")
    use_model(alone, Metered(alone, ScriptedModel(learner)), Policy(model="random"))
    evolve_one(asynchronous(path, settings=settings), alone)
    alone.close()
    assert {one.id: gist(one) for one in run.trajectories.values()} == {one.id: gist(one) for one in alone.trajectories.values()}
    assert set(makings(tmp_path / "run").values()) == {1}


BAD = {"ahead": 0, "now": 0}


def failing(policy, tasks, run, *, samples: int = 2):
    """Fails in the round that `BAD` names, ahead of it or in it."""
    try:
        attempts = rollout(policy, tasks, run, phase=f"{run.round}/acquire", samples=samples)
    finally:
        if run.round == BAD["now" if run.known is None else "ahead"]:
            raise AgentevolveError("the roof is open")
    return remember(policy, demos(attempts, run.round), run)


@pytest.fixture
def bad():
    """What fails, until the test is over."""
    yield BAD
    BAD.update(dict.fromkeys(BAD, 0))


def failing_run(tmp_path) -> Run:
    run = scripted(new_run(tmp_path / "run"), learner)
    path = task_file(tmp_path, length=2, limit=4, pause=0.002)
    try:
        evolve_one(asynchronous(path, method="test_ahead:failing", settings={}), run)
    finally:
        run.close()
    return run


def goes_on_to_its_end(tmp_path) -> None:
    run = failing_run(tmp_path)
    assert "gate 3/val" in run.facts and set(makings(tmp_path / "run").values()) == {1}
    stale_by_one_at_most(run)


def test_what_fails_ahead_is_raised_when_its_round_begins_and_not_before(tmp_path, bad):
    bad["ahead"] = 3
    with pytest.raises(AgentevolveError, match="the roof is open"):
        failing_run(tmp_path)
    run = read_run(tmp_path / "run")
    assert "gate 2/val" in run.facts and f"{BEGUN}3" not in run.facts
    assert len(acquired(run, 3)) == 12
    bad["ahead"] = 0
    goes_on_to_its_end(tmp_path)


def test_what_fails_now_stops_what_is_made_ahead(tmp_path, bad):
    bad["now"] = 2
    with pytest.raises(AgentevolveError, match="the roof is open"):
        failing_run(tmp_path)
    assert not [one for one in threading.enumerate() if one.name != "MainThread" and not one.daemon]
    bad["now"] = 0
    goes_on_to_its_end(tmp_path)


def test_an_earlier_policy_that_is_put_back_makes_again_what_was_made_ahead(tmp_path, bad):
    bad["ahead"] = 3
    with pytest.raises(AgentevolveError):
        failing_run(tmp_path)
    before = read_run(tmp_path / "run")
    assert {one.policy.round for one in acquired(before, 3)} == {1}
    with pytest.raises(AgentevolveError, match=r"no earlier round 2; known: 0 \(the base\) to 1"):
        take_back(tmp_path / "run", 2, "")
    take_back(tmp_path / "run", 0, "it shouts")
    assert not acquired(read_run(tmp_path / "run"), 3)
    bad["ahead"] = 0
    run = failing_run(tmp_path)
    assert in_place(run) == [0, 1, 0]
    assert {one.policy.round for one in acquired(run, 3)} == {0} and len(acquired(run, 3)) == 12
    counts = makings(tmp_path / "run")
    assert {n for (_, id, _), n in counts.items() if id.startswith("3/acquire")} == {2}
    assert {n for (_, id, _), n in counts.items() if not id.startswith("3/acquire")} == {1}
    with pytest.raises(AgentevolveError, match="no earlier round 3"):
        take_back(tmp_path / "run", 3, "")


def test_nothing_is_put_back_under_a_round_that_has_begun(tmp_path, bad):
    bad["now"] = 2
    with pytest.raises(AgentevolveError):
        failing_run(tmp_path)
    with pytest.raises(AgentevolveError, match="round 2 has begun with the policy in place after round 1"):
        take_back(tmp_path / "run", 0, "")


# --- being killed ---

KILLS = 12


def cut_config(folder: Path) -> Config:
    return killed_config(folder).model_copy(update={"asynchronous": True, "rounds": 3})


def child(folder: Path) -> None:
    """What is killed: a whole asynchronous evolution, or what is left of it."""
    run = new_run(folder / "run", workers=3)
    evolve_one(cut_config(folder), run)
    run.close()


def test_killed_at_any_moment_it_comes_to_the_same_attempts_each_once(tmp_path):
    expected_folder, folder = tmp_path / "whole", tmp_path / "killed"
    child(expected_folder)
    expected = read_run(expected_folder / "run")
    chance, total = random.Random(11), len(expected.journal.read())
    killed, both = 0, 0
    for at in sorted(chance.sample(range(total - 20), KILLS)):
        process = start(child, folder)
        while process.is_alive() and len(whole_lines(folder)) < at:
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.03))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        killed += process.exitcode != 0
        rounds = {json.loads(line)["data"]["phase"][0] for line in whole_lines(folder) if line.startswith(b'{"kind":"traj')}
        gates = sum(b'"name":"gate ' in line for line in whole_lines(folder))
        both += len(rounds & set("123")) > gates + 1  # it died while attempts for the next round were made
    process = start(child, folder)
    process.join()
    assert process.exitcode == 0 and killed >= KILLS - 2 and both
    run = read_run(folder / "run")
    assert {id: gist(one) for id, one in run.trajectories.items()} == {id: gist(one) for id, one in expected.trajectories.items()}
    assert run.facts == expected.facts
    assert set(makings(folder).values()) == {1}
    same_memory(folder / "run" / "memory", expected_folder / "run" / "memory")
    stale_by_one_at_most(run)


def command(words, place: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    told = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": place}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *words], env=os.environ | {"PYTHONPATH": path}, **told)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_stopped_while_both_phases_are_at_work_goes_on_with_every_token_in_the_books(tmp_path, sign):
    def slowly(messages):
        time.sleep(0.02)
        return learn(messages)

    with Server(learn) as calm, Server(slowly) as server:
        expected = (*prepared(tmp_path / "calm", calm)["evolve"], "asynchronous=true", "gate.rule=none")
        process = command(expected, tmp_path / "calm")
        assert process.communicate(timeout=300)[1] == "" or process.returncode == 0
        words = (*prepared(tmp_path / "cut", server, timeout=30.0)["evolve"], "asynchronous=true", "gate.rule=none")
        process = command(words, tmp_path / "cut")
        journal = tmp_path / "cut" / "out" / JOURNAL
        until = time.monotonic() + 120
        while not (journal.exists() and b'"phase":"2/acquire"' in journal.read_bytes()) and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.005)
        process.send_signal(sign)
        _, said = process.communicate(timeout=60)
        assert process.returncode == (130 if sign == signal.SIGINT else -signal.SIGKILL), said
        assert b'"gate 1/val"' not in journal.read_bytes()
        process = command(again(words), tmp_path / "cut")
        assert process.communicate(timeout=300) and process.returncode == 0
        assert outcomes(tmp_path / "cut") == outcomes(tmp_path / "calm")
        assert set(makings(tmp_path / "cut").values()) == {1}
        settled(tmp_path / "cut", server, kills=1)
        for run in runs(tmp_path / "cut"):
            stale_by_one_at_most(run)


# --- what it is refused for ---


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "grpo", "settings": {}, "model": "vllm/{weights}", "api_base": "http://127.0.0.1:9/v1"}, "objective grpo"),
        ({"method": "gepa", "settings": {}}, "the method 'gepa' begins a round with instructions that the one before has"),
        ({"method": "voyager", "settings": {}}, "the method 'voyager' begins a round with tasks"),
        ({"method": "reflexion", "settings": {}, "model": "local/{weights}"}, "acts in this process, on the machine that trains"),
        ({"method": "rest_em", "settings": {}, "model": "vllm/{weights}"}, "a training ends the server of vllm/"),
        (
            {"method": "rest_em", "settings": {}, "model": "vllm/{weights}", "api_base": "http://x/v1", "workers": {"on": "ray"}},
            "on Ray each process loads adapters",
        ),
    ],
)
def test_what_it_would_be_wrong_or_useless_for_is_refused_by_name(tmp_path, changes, said):
    from agentevolve.loop.ahead import check_ahead
    from agentevolve.loop.evolve import asked_of, trains

    changes = {name: value.format(weights=tmp_path) if isinstance(value, str) else value for name, value in changes.items()}
    config = asynchronous(task_file(tmp_path), **changes)
    asked = asked_of(config.method, config.settings)
    with pytest.raises(AgentevolveError, match=f"^asynchronous: .*{said}") as caught:
        check_ahead(config, asked, trains=trains(asked))
    assert "\n" not in str(caught.value)


def test_it_is_refused_before_anything_is_written(tmp_path):
    from agentevolve.loop.evolve import evolve

    with pytest.raises(AgentevolveError, match="asynchronous: the method 'gepa'"):
        evolve(asynchronous(task_file(tmp_path), method="gepa", settings={}), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    checked(asynchronous(task_file(tmp_path), method="reflexion", settings={}))


def test_a_run_does_not_become_asynchronous_half_way(tmp_path):
    from agentevolve.loop.evolve import evolve

    config = asynchronous(task_file(tmp_path, length=2), rounds=1, arms=["base"])
    evolve(config, tmp_path / "run", quiet=True)
    with pytest.raises(AgentevolveError, match=r"was made with other settings \(asynchronous\)"):
        evolve(config.model_copy(update={"asynchronous": False}), tmp_path / "run", resume=True, quiet=True)


def test_attempts_are_counted_once_in_what_a_run_has_cost(tmp_path):
    run = scripted(new_run(tmp_path / "run"), learner)
    evolve_one(asynchronous(task_file(tmp_path, length=2)), run)
    run.close()
    phases = Counter(one.phase for one in run.trajectories.values())
    assert [phases[f"{number}/acquire"] for number in (1, 2, 3)] == [18, 18, 18]
    assert run.learning()[0] == 54 and len(make_tasks(6)) == 6
