"""What entries are worth, by simulation and by hand; and what curation makes of it."""

import random

import numpy as np
import pytest
from worlds import make_tasks, new_run, use_model, walker

from agentevolve.act.rollout import rollout
from agentevolve.memory import HashEmbedder, open_memory, read_ledger
from agentevolve.memory.credit import ENOUGH, HARMFUL, credits, posterior
from agentevolve.memory.curate import curate
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy, PolicyStamp, Recall
from agentevolve.records import Entry, Ranking, Trajectory, Turn
from agentevolve.refine import demos
from agentevolve.update import memory_of, remember


def tried(task: int, solved: bool, *recalled: str, **more) -> Trajectory:
    one = make_tasks(task + 1)[task]
    made = {"id": f"{random.random()}", "task": one, "policy": PolicyStamp(model="m"), "phase": "p", "end": "terminated"}
    return Trajectory(**made | {"reward": float(solved), "recalled": recalled} | more)


def test_credit_is_the_gain_over_the_same_tasks_without_it():
    hard, easy = 0, 1  # e is used on the hard task, where others do worse still: it helps, though its uses fail more often
    attempts = [tried(hard, n < 6, "e") for n in range(10)] + [tried(hard, n < 1, "f") for n in range(10)]
    attempts += [tried(easy, True) for _ in range(20)] + [tried(easy, True, "f") for _ in range(10)]
    found = credits(attempts)
    assert found["e"].uses == 10 and found["e"].solved == 6 and found["e"].without == pytest.approx(0.1)
    assert found["e"].gain > 0.3 and found["e"].harm < 0.05
    assert found["f"].uses == 20 and found["f"].without == pytest.approx((10 * 0.6 + 10 * 1.0) / 20)
    assert found["f"].gain < 0 and not found["e"].harmful


def test_what_says_nothing_is_not_counted():
    assert credits([tried(0, True, "e"), tried(0, False, "e")])["e"].uses == 0  # never tried without it
    lost = tried(0, False, end="error")
    stuck = tried(0, False, turns=(Turn(action="a", observation="o", looked=({"id": "e", "shown": True},)),))
    assert credits([tried(0, True, "e"), lost, stuck])["e"].uses == 0
    assert credits([]) == {}


def test_a_posterior_is_that_of_two_beta_distributions():
    found = posterior(10, 2, 0.6, 20.0)
    draws = np.random.default_rng(0)
    mine, theirs = draws.beta(3, 9, 200_000), draws.beta(13, 9, 200_000)
    assert found.gain == pytest.approx(float(mine.mean() - theirs.mean()), abs=0.005)
    assert found.harm == pytest.approx(float((mine < theirs).mean()), abs=0.005)
    assert posterior(0, 0, 0.5, 0.0).harm == pytest.approx(0.5, abs=0.01)


def lifetime(seed: int, uses: int, harm: float = 0.4, entries: int = 20, base: float = 0.6) -> tuple[int, int]:
    """An entry that costs `harm` among others that change nothing, each asked after every other use from ENOUGH on, as curation
    round after round would: (uses until the harmful one is found, or 0; how many harmless ones were ever found harmful)."""
    draws = np.random.default_rng(seed)
    first, wrong = 0, 0
    for number in range(entries):
        rate = base - harm if number == 0 else base
        won = np.cumsum(draws.random(uses) < rate)
        others = (draws.random(uses * (entries - 1)) < base).mean()  # the same tasks with other entries in view
        found = [n for n in range(ENOUGH, uses + 1, 2) if posterior(n, int(won[n - 1]), float(others), n * 19.0).harm >= HARMFUL]
        if number == 0:
            first = found[0] if found else 0
        else:
            wrong += bool(found)
    return first, wrong


def test_a_harmful_entry_among_twenty_is_found_and_a_harmless_one_hardly_ever():
    """40 simulated memories: within 30 uses the harmful entry is found in at least nine of ten, and of the 760 harmless ones at
    most 5 in a hundred are retired over their whole 30 uses."""
    found = [lifetime(seed, 30) for seed in range(40)]
    assert sum(first > 0 for first, _ in found) >= 36
    assert sum(wrong for _, wrong in found) <= 0.05 * 40 * 19


# --- curation ---


def entry(id: str, text: str = "", **fields) -> Entry:
    return Entry(
        **({"id": id, "kind": "insight", "key": id, "text": text or f"text {id}", "env": "e", "sources": (f"p/{id}/0",)} | fields)
    )


@pytest.fixture
def memory(tmp_path):
    with open_memory(tmp_path / "m", embedder=HashEmbedder()) as opened:
        yield opened


def harm(id: str, n: int = 12) -> list[Trajectory]:
    return [tried(0, False, id) for _ in range(n)] + [tried(0, True) for _ in range(n)]


def test_what_does_harm_retires_and_says_why(memory):
    memory.add([entry("bad"), entry("good", text="quite another thing")])
    [done] = curate(memory, harm("bad") + [tried(0, True, "good") for _ in range(9)], 2)
    assert (done.id, done.what) == ("bad", "retired") and "0 of 12 solved with it" in done.why
    assert [one.id for one in memory.entries()] == ["good"] and len(memory.entries(as_of=1)) == 2
    ledger = read_ledger(memory.folder)
    assert ledger.gain("bad") < -0.3 and ledger.gain("bad", as_of=1) == 0.0 and ledger.gain("good") > 0
    assert curate(memory, harm("bad"), 2) == []  # said again, it is done already


def test_what_says_nearly_the_same_becomes_one_with_all_sources(memory):
    memory.add([entry("a", "walk to the red lamp"), entry("b", "to the red lamp walk"), entry("c", "open a door")])
    memory.add([entry("d", "walk to the red lamp!", task="t"), entry("f", "walk to the red lamp", env="f")])
    done = curate(memory, [tried(0, True, "b"), tried(0, False)], 3)
    assert [(one.id, one.what, one.merged) for one in done] == [("a", "merged", "b@3")]
    held = {one.id: one for one in memory.entries()}
    assert set(held) == {"b@3", "c", "d", "f"} and held["b@3"].sources == ("p/a/0", "p/b/0")
    assert {one.id for one in memory.entries(as_of=2)} == {"a", "b", "c", "d", "f"}
    assert curate(memory, [], 3) == []


def test_merging_again_in_a_round_loses_nothing(memory):
    memory.add([entry("a", "walk to the red lamp"), entry("b", "to the red lamp walk")])
    assert [one.merged for one in curate(memory, [], 3)] == ["a@3"]
    memory.add([entry("c", "red lamp walk to the", round=3)])
    assert {one.merged for one in curate(memory, [], 3)} == {"a@3.2"}
    assert [(one.id, one.sources) for one in memory.entries()] == [("a@3.2", ("p/a/0", "p/b/0", "p/c/0"))]


def test_a_world_keeps_what_is_worth_most(memory):
    memory.add([entry(str(n), f"{'x' * (n + 1)} thing") for n in range(5)] + [entry("other", env="f")])
    done = curate(memory, [tried(0, True, "3")] * 4 + [tried(0, False)] * 4, 1, alike=2, budget=2)
    assert {one.id for one in memory.entries()} == {"3", "0", "other"} and len(done) == 3


def test_recall_ranks_by_credit_and_recency_where_it_is_asked_to(memory):
    memory.add([entry("old", key="the red lamp"), entry("new", key="the red lamp on", round=5)])

    def first(as_of=None, **weights) -> str:
        ranking = Ranking(**weights)
        return memory.recall("the red lamp", env="e", k=1, kind="insight", as_of=as_of, ranking=ranking)[0][0].id

    assert first() == "old" and first(recency=1.0) == "new"
    memory.note({"new": 0.9, "old": -0.5}, 6)
    assert first(credit=0.5) == "new" and first(credit=0.5, as_of=5) == "old" and first() == "old"


def test_a_memory_seeded_with_harmful_entries_recovers_under_curation_and_not_without(tmp_path):
    """Five demos of waiting among five of walking: who is shown one of waiting waits."""

    def imitates(messages, choices):
        shown = [message.content for message in messages[:-1] if message.role == "assistant"]
        return "wait" if "wait" in shown[:2] else walker(messages, choices)

    success = {}
    for curated in (False, True):
        run = new_run(tmp_path / str(curated), workers=1)
        won = rollout(Policy(model="oracle"), make_tasks(10, length=2), run, phase="0/acquire")
        bad = [
            one.model_copy(update={"turns": tuple(turn.model_copy(update={"action": "wait"}) for turn in one.turns)})
            for one in won[:5]
        ]
        policy = remember(Policy(model="random", recall=Recall(nearest={"demo": 1})), demos([*bad, *won[5:]], 1), run)
        use_model(run, ScriptedModel(imitates), policy)
        practice = make_tasks(10, length=2, limit=3)
        bare = policy.using(memory=None, as_of=None)
        for number in (1, 2):
            run.round = number
            lived = rollout(policy, practice, run, phase=f"{number}/acquire", samples=6)
            if curated:
                lived += rollout(bare, practice, run, phase=f"{number}/acquire/bare", samples=2)
                curate(memory_of(run), lived, number, alike=2)
        policy = policy.using(as_of=2)
        held = rollout(policy, make_tasks(20, length=2, limit=3, split="val"), run, phase="val", measuring=True)
        success[curated] = sum(one.solved for one in held) / len(held)
        run.close()
    assert success[True] == 1.0 and success[False] < 0.7
