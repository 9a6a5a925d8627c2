"""What a worker elsewhere has made is taken in once, whatever was told of it already, and what it had begun is charged."""

from worlds import make_tasks, new_run

from agentevolve.act.rollout import rollout
from agentevolve.memory.forget import forget
from agentevolve.policy import Policy
from agentevolve.records import Usage
from agentevolve.run.folder import MANNER, Run, read_run
from agentevolve.run.shards import SHARDS, take_in, take_in_all
from agentevolve.run.underway import doing

RANDOM = Policy(model="random")
PAID = Usage(calls=1, prompt_tokens=30, completion_tokens=3)


def shard(run, name="node-1-1", tasks=2, phase="p"):
    """A worker's shard with attempts, a cost that came to nothing, and a backend's manner."""
    made = Run(run.folder / SHARDS / name, quiet=True)
    found = rollout(RANDOM, make_tasks(tasks), made, phase=phase)
    made.lose(f"{phase}/x/0", PAID)
    made.once(f"{MANNER}m/seed", lambda: "refused")
    made.close()
    return made.folder, found


def test_a_shard_is_taken_in_whole_and_goes(tmp_path):
    run = new_run(tmp_path / "run")
    place, found = shard(run)
    assert take_in(place, run) == {one.id for one in found}
    assert [run.trajectories[one.id] for one in found] == found
    assert run.spent().tokens == run.budget.spent.tokens == PAID.tokens
    assert run.facts[f"{MANNER}m/seed"] == "refused"
    assert not place.exists()


def test_what_was_told_already_is_not_taken_in_again(tmp_path):
    run = new_run(tmp_path / "run")
    place, found = shard(run)
    run.add(found[0])
    run.once("lost/p/x/0/node-1-1.0", lambda: {"usage": PAID.model_dump()})
    assert take_in(place, run) == {found[1].id}
    assert run.spent().tokens == PAID.tokens


def test_of_an_attempt_that_another_has_made_meanwhile_the_cost_alone_is_taken(tmp_path):
    run = new_run(tmp_path / "run")
    place, found = shard(run)
    turn = found[0].turns[0]
    other = found[0].model_copy(update={"seconds": 9.0, "turns": (turn.model_copy(update={"usage": PAID}), *found[0].turns[1:])})
    run.add(other)
    place2, _ = shard(run, "node-2-1")
    take_in(place, run)
    take_in(place2, run)
    assert run.trajectories[other.id] == other
    assert run.spent().tokens == 3 * PAID.tokens  # the attempt that stands, and what two workers lost; the two others were free


def test_calls_that_a_dead_worker_had_under_way_are_charged(tmp_path):
    run = new_run(tmp_path / "run")
    dead = Run(run.folder / SHARDS / "node-1-1", quiet=True)
    with doing(dead.making("p/y/0")):
        dead.notes.begin(500, 0.25)
    dead._held.release()  # as the system does when a process dies; its notes stay
    take_in_all(run)
    spent = run.spent()
    assert (spent.tokens, spent.usd) == (500, 0.25)
    assert not (run.folder / SHARDS).exists()
    assert read_run(run.folder).spent().tokens == spent.tokens


def test_what_lies_in_a_shard_is_forgotten_too(tmp_path):
    run = new_run(tmp_path / "run")
    run.about("policy", "random")
    shard(run)
    run.close()
    forget(run.folder, task="corridor/train/0")
    said = b"".join(path.read_bytes() for path in run.folder.rglob("*") if path.is_file())
    assert b"Corridor one" not in said and b"Corridor two" in said
