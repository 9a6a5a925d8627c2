"""Methods that mix weights, data or manners: what is averaged, what comes again, what is preferred."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from worlds import lamp, make_tasks, use_model, walker

from agentevolve.act.rollout import rollout
from agentevolve.local.adapter import WEIGHTS, LoraSettings, read_adapter, read_rows
from agentevolve.methods.elastic_reset import elastic_reset
from agentevolve.methods.model_soups import model_soups
from agentevolve.methods.rlcd import rlcd
from agentevolve.refine import keep
from agentevolve.update import examples, finetune, merged, mixed, per_skill, replayed

QUICK = LoraSettings(rank=2, alpha=4, epochs=1)
DPO = LoraSettings(rank=2, alpha=4, epochs=1, objective="dpo")
TASKS = make_tasks(4, length=2, limit=4)


def said(messages) -> list[str]:
    return [message.content for message in messages if message.role == "assistant"]


def changes(adapter) -> dict[str, torch.Tensor]:
    """What an adapter adds to each weight: alpha / rank · B A."""
    path = Path(adapter)
    settings, tensors = read_adapter(path).settings, load_file(path / WEIGHTS)
    names = [name for name in tensors if ".lora_A." in name]
    scale = settings.alpha / settings.rank
    return {name: scale * tensors[name.replace(".lora_A.", ".lora_B.")] @ tensors[name] for name in names}


# ---------------------------------------------------------------- the data mix


def test_the_rounds_of_a_mix(house):
    home = house(walker)
    for number in (1, 2, 3):
        home.run.round = number
        rollout(home.policy, TASKS[:1], home.run, phase=f"{number}/acquire")
    rounds = {mix: [int(one.id[0]) for one in mixed(home.run, mix)] for mix in ("fresh", "window", "cumulative")}
    assert rounds == {"fresh": [3], "window": [2, 3], "cumulative": [1, 2, 3]}
    assert [int(one.id[0]) for one in mixed(home.run, "window", window=9)] == [1, 2, 3]
    home.run.round = 1  # a resumed run does not look ahead
    assert [int(one.id[0]) for one in mixed(home.run, "cumulative")] == [1]


def rows_of(home, tasks, phase):
    return examples(rollout(home.policy, tasks, home.run, phase=phase))


def test_replay_draws_its_share_from_what_the_adapter_was_trained_on(house):
    home = house(walker)
    earlier, fresh = rows_of(home, TASKS, "1/acquire"), rows_of(home, TASKS[:3], "2/acquire")
    policy = finetune(home.policy, earlier, home.run, "round-1", QUICK)
    home.run.round = 2
    for share, wanted in ((0.0, 0), (0.25, 1), (0.5, 3), (0.9, 4), (1.0, 4)):
        rows = replayed(fresh, policy, home.run, share)
        assert rows[wanted:] == fresh and len(rows) == wanted + 3
        assert {row.id for row in rows[:wanted]} <= {row.id for row in earlier}
    assert replayed(fresh, policy, home.run, 0.5) == replayed(fresh, policy, home.run, 0.5)
    assert replayed(fresh, home.policy, home.run, 0.5) == fresh  # nothing was learnt before
    assert replayed(earlier, policy, home.run, 0.5) == earlier  # a row is there once


# ---------------------------------------------------------------- merging


def test_a_policy_s_adapters_become_their_average_once(house):
    home = house(walker)
    rows = rows_of(home, TASKS, "1/acquire")
    parts = [finetune(home.policy, rows, home.run, f"part-{n}", QUICK).adapter for n in (1, 2)]
    policy = merged(home.policy, parts, home.run, "both")
    one, two, both = map(changes, (*parts, policy.adapter))
    assert all((both[name] - (one[name] + two[name]) / 2).abs().max() < 1e-6 for name in both)
    stamp = (Path(policy.adapter) / WEIGHTS).stat().st_mtime_ns
    assert merged(home.policy, parts, home.run, "both") == policy
    assert (Path(policy.adapter) / WEIGHTS).stat().st_mtime_ns == stamp
    assert merged(home.policy, [None], home.run, "none") is home.policy


def test_skills_are_learnt_apart_and_added_up(house):
    home = house(walker)
    rows = rows_of(home, TASKS, "1/acquire")
    skills = per_skill(home.policy, rows, home.run, "skill", QUICK, lambda row: said(row.completion)[0])
    assert {skill: {said(row.completion)[0] for row in read_rows(Path(folder))} for skill, folder in skills.items()} == {
        "left": {"left"},
        "right": {"right"},
    }
    policy = merged(home.policy, skills.values(), home.run, "skills", weights=[1.0, 1.0])
    left, right, both = map(changes, (skills["left"], skills["right"], policy.adapter))
    assert all((both[name] - left[name] - right[name]).abs().max() < 1e-6 for name in both)
    assert {row.id for row in home.rows(policy)} == {row.id for row in rows}


def test_a_soup_is_the_average_of_trainings_from_the_base_on_the_same_rows(house):
    home = house(walker)
    policy = model_soups(home.policy, TASKS, home.run, samples=2, learning_rates=(1e-3, 1e-2), lora=QUICK)
    parts = [home.run.folder / "adapters" / f"round-1-{n}" for n in (1, 2)]
    infos = list(map(read_adapter, parts))
    assert [info.settings.learning_rate for info in infos] == [1e-3, 1e-2] and infos[0].seed != infos[1].seed
    assert [info.start for info in infos] == [None, None]
    assert read_rows(parts[0]) == read_rows(parts[1]) == home.rows(policy) and len(home.rows(policy)) == 4
    assert read_adapter(Path(policy.adapter)).parts == tuple((info.identity, 0.5) for info in infos)
    one, two, both = map(changes, (*parts, policy.adapter))
    assert all((both[name] - (one[name] + two[name]) / 2).abs().max() < 1e-6 for name in both)
    lost = house(lambda *_: "wait")
    assert model_soups(lost.policy, TASKS, lost.run, samples=1, lora=QUICK) == lost.policy


def test_elastic_reset_acts_by_the_moving_average_of_its_epochs_and_the_base(house):
    home = house(walker)
    loud = QUICK.model_copy(update={"learning_rate": 0.01})
    policy = elastic_reset(home.policy, TASKS, home.run, samples=1, epochs=2, decay=0.25, lora=loud)
    passed = [home.run.folder / "adapters" / f"round-1-{n}" for n in (1, 2)]
    one, two, average = map(changes, (*passed, policy.adapter))
    wanted = {name: 0.75 * 0.25 * one[name] + 0.75 * two[name] for name in one}  # and 0.25 ** 2 of the base
    assert read_adapter(passed[1]).start == read_adapter(passed[0]).identity
    for name, found in average.items():  # cut from rank 4 to 2: the nearest there is
        rest = torch.linalg.svdvals(wanted[name])[2:].norm()
        assert (found - wanted[name]).norm().item() == pytest.approx(rest.item(), abs=1e-5)
    home.run.round = 2
    home.answers_with(Path(policy.adapter))
    again = elastic_reset(policy, TASKS[:2], home.run, samples=1, epochs=2, decay=0.25, replay=0.5, lora=loud)
    first = home.run.folder / "adapters" / "round-2-1"
    assert read_adapter(first).start == read_adapter(Path(policy.adapter)).identity  # it goes on from the reset
    assert {row.id.split("/")[0] for row in read_rows(first)} == {"1", "2"} and len(read_rows(first)) == 4
    assert [weight for _, weight in read_adapter(Path(again.adapter)).parts] == [0.1875, 0.75]  # the average began anew


def test_elastic_reset_without_a_solution_changes_nothing(house):
    home = house(lambda *_: "wait")
    assert elastic_reset(home.policy, TASKS, home.run, samples=1, lora=QUICK) == home.policy


# ---------------------------------------------------------------- perturbation


def test_rlcd_prefers_the_careful_attempt_unscored_and_trains_on_neither_instruction(house):
    def obeying(messages, choices):
        assert len(messages) >= 2 and messages[0].role == "system"
        return "wait" if "Be careful" in messages[0].content else walker(messages, choices)

    home = house(obeying)
    policy = rlcd(home.policy.using(instructions="Walk."), TASKS, home.run, lora=DPO)
    rows = home.rows(policy)
    assert len(rows) == 4 and not any("How well" in call[0][-1].content for call in home.model.calls)
    for task, row in zip(TASKS, rows, strict=True):
        careful, careless = (home.run.trajectories[id] for id in row.sources)
        assert (careful.phase, careless.phase) == ("1/acquire/careful", "1/acquire/careless")
        assert (careful.reward, careless.reward, careful.seed) == (0.0, 1.0, careless.seed)  # the worse one is preferred
        assert (said(row.completion), said(row.rejected)) == (["wait"] * 4, [lamp(task)] * 2)
        assert "Be care" in careful.system and row.prompt[0].content == careful.system.split("\nBe care")[0]
        assert row.prompt[0].content.endswith("\nWalk.")
    assert {one.id for one in keep(home.run.acquired())} == {row.sources[1] for row in rows}


def test_rlcd_leaves_out_what_is_alike_or_broken(house):
    alike = house(walker)
    assert rlcd(alike.policy, TASKS, alike.run, lora=DPO).adapter is None

    def obeying(messages, choices):
        return "wait" if "Be careless" in messages[0].content else walker(messages, choices)

    broken = house(obeying)
    policy = rlcd(broken.policy, make_tasks(4, env="Broken", length=2, limit=4), broken.run, lora=DPO)
    assert len(broken.rows(policy)) == 2  # the ceiling comes down in every other world


def test_rlcd_goes_on_from_the_round_before(house):
    def obeying(messages, choices):
        return "wait" if "Be careless" in messages[0].content else walker(messages, choices)

    home = house(obeying)
    first = rlcd(home.policy, TASKS[:2], home.run, samples=2, lora=DPO)
    assert len(home.rows(first)) == 4
    home.run.round = 2
    use_model(home.run, home.model, first)
    home.answers_with(Path(first.adapter))
    second = rlcd(first, TASKS[:2], home.run, lora=DPO)
    assert read_adapter(Path(second.adapter)).start == read_adapter(Path(first.adapter)).identity
