"""τ²-bench telecom: judged as the package judges, the same each time, and quiet."""

import importlib
import os
import random
import subprocess
import sys

import pytest
from worlds import side_by_side

pytest.importorskip("addict")
pytest.importorskip("deepdiff")
pytest.importorskip("docstring_parser")
pytest.importorskip("dotenv")
pytest.importorskip("loguru")
pytest.importorskip("toml")

from agentevolve.environments.support.tau2 import listed, load, tools
from agentevolve.environments.tau2 import SEEDS, Tau2, check, make
from agentevolve.models.tools import Call, read, sample, written
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Task


def ticket(seed: int, split: str = "", **data) -> Task:
    split = split or next(split for split, seeds in SEEDS.items() if seed in seeds)
    return Task(id=f"tau2/{split}/{seed}", env="tau2", split=split, seed=seed, data=data)


def call(name: str, **arguments) -> str:
    return written([Call(name, arguments)])


def play(env: Tau2, task: Task, actions: list[str]) -> tuple[list[str], float]:
    """What was seen, and the score at the end."""
    seen, score = [env.reset(task)[0]], 0.0
    for action in actions:
        step = env.step(action)
        seen.append(step.observation)
        score = step.info["score"]
    return seen, score


def to_hand_on() -> Task:
    """A task that can only be handed on to a human."""
    return ticket(next(seed for seed in SEEDS["train"] if "ACTION" in listed()[seed]["evaluation_criteria"]["reward_basis"]))


def to_refuel() -> Task:
    """A task in which data must be bought."""
    return ticket(next(seed for seed in SEEDS["train"] if "refuel_data" in str(listed()[seed]["evaluation_criteria"]["actions"])))


def test_the_oracle_solves_every_task():
    env = make()
    for seed in range(114):
        task = ticket(seed)
        assert play(env, task, env.oracle(task))[1] == 1.0, listed()[seed]["id"]


@pytest.mark.parametrize("policy", ["manual", "workflow"])
def test_the_notes_hold_the_policy(policy):
    env = make()
    observation, info = env.reset(ticket(0, policy=policy))
    world = load().get_environment(solo_mode=True, policy_type=policy)
    assert world.get_policy().strip() in info["notes"]
    assert observation == listed()[0]["ticket"].strip()


def test_the_splits_are_the_packages_own():
    splits = load().get_tasks_split()
    ids = [task["id"] for task in listed()]
    assert sorted(ids[:74]) == sorted(splits["train"])
    assert ids[74:] == splits["test"]
    assert len(set(ids)) == 114
    assert {seed for seeds in SEEDS.values() for seed in seeds} == set(range(114))
    faults = [repr(task["initial_state"]["initialization_actions"]) for task in listed()]
    assert len(set(faults)) == 114


def test_each_tool_of_the_operator_and_the_phone_is_listed_and_called():
    env = make()
    world = load().get_environment(solo_mode=True)
    names = [tool["function"]["name"] for tool in tools()]
    assert sorted(names) == sorted([*world.tools.tools, *world.user_tools.tools, "done"])
    env.reset(ticket(0))
    for name in names[:-1]:
        assert "there is no tool" not in env.step(call(name)).observation


def package_reward(actions: list[str], task: Task) -> float:
    """The package's own verdict on these calls, from which it plays the whole attempt again."""
    message = importlib.import_module("tau2.data_model.message")
    environment = importlib.import_module("tau2.evaluator.evaluator_env").EnvironmentEvaluator
    action = importlib.import_module("tau2.evaluator.evaluator_action").ActionEvaluator
    made, stored = load().get_environment(solo_mode=True), load().Task.model_validate(listed()[task.seed])
    made.set_state(stored.initial_state.initialization_data, stored.initial_state.initialization_actions, [])
    trajectory = []
    for number, one in enumerate(one for text in actions[:-1] for one in read(text)):
        asked = message.ToolCall(id=str(number), name=one.name, arguments=one.arguments)
        trajectory += [message.AssistantMessage(role="assistant", tool_calls=[asked]), made.get_response(asked)]
    reward = environment.calculate_reward(load().get_environment, stored, trajectory, solo_mode=True).reward
    if "ACTION" in stored.evaluation_criteria.reward_basis:
        reward *= action.calculate_reward(stored, trajectory).reward
    return reward


def test_the_score_is_the_packages_own():
    pytest.importorskip("pandas")
    env, scores = make(), []
    for seed in range(0, 114, 3):
        task, dice = ticket(seed), random.Random(seed)
        actions = env.oracle(task)
        if seed % 2:  # a call is left out, or others come between
            del actions[dice.randrange(len(actions) - 1)]
        for _ in range(dice.randrange(3)):
            actions.insert(dice.randrange(len(actions)), sample(tools()[:-1], dice))
        _, score = play(env, task, actions)
        assert score == package_reward(actions, task), listed()[seed]["id"]
        scores.append(score)
    assert 5 < sum(scores) < len(scores) - 5


def test_only_the_tickets_that_need_it_are_solved_by_handing_on():
    env = make()
    handed = [call("transfer_to_human_agents", summary="Too hard."), call("done")]
    assert play(env, to_hand_on(), [call("done")])[1] == 0.0
    assert play(env, to_hand_on(), handed)[1] == 1.0
    assert play(env, to_refuel(), handed)[1] == 0.0


def test_a_new_bill_has_the_same_number_each_time():
    env, task = make(), to_refuel()
    refuel = next(action for action in env.oracle(task) if "refuel_data" in action)
    customer = read(refuel)[0].arguments["customer_id"]
    bills = call("get_bills_for_customer", customer_id=customer)
    first, second = (play(env, task, [bills, refuel, bills, call("get_details_by_id", id=customer)])[0] for _ in range(2))
    assert first == second
    assert first[1] != first[3]


def test_what_cannot_be_called_is_answered():
    env, task = make(), ticket(1)
    solution = env.oracle(task)
    env.reset(task)
    for action, answer in (
        ("I think it is the SIM card.", "only calls of tools"),
        ('{"name": "reboot_device", ', "only calls of tools"),
        (call("set_data_usage", customer_id="C1001", line_id="L1002", data_used_gb=0), "there is no tool"),
        (call("_reboot_device"), "there is no tool"),
        (call("unseat_sim_card"), "there is no tool"),
        ('{"name": "reboot_device", "arguments": 5}', "not a mapping"),
        (call("reboot_device", requestor="user"), "Error"),
        (call("reboot_device", self=1), "Error"),
        (call("get_details_by_id"), "Error"),
        (call("get_details_by_id", id=7), "Error"),
        ('{"name": "check_app_status", "arguments": {"app_name": "\\ud800"}}', ""),
        ('{"name": "set_apn_settings", "arguments": {"apn_settings": ' + '{"a":' * 900 + "1" + "}" * 900 + "}}", "Error"),
        (call("refuel_data", customer_id="C1001", line_id="L1002", gb_amount="2"), "Error"),
    ):
        step = env.step(action)
        assert answer in step.observation
        assert step.observation
        step.observation.encode()
    for action in solution:
        step = env.step(action)
    assert step.terminated and step.info["score"] == 1.0


def test_a_phone_set_to_nonsense_scores_nothing():
    env = make()
    _, score = play(env, ticket(0), [call("set_network_mode_preference", mode=5), call("reboot_device"), call("done")])
    assert score == 0.0


def test_the_limit_truncates_and_several_calls_are_one_action():
    env = make()
    env.reset(ticket(0, limit=2))
    step = env.step(f"[{call('check_status_bar')}, {call('check_sim_status')}]")
    assert len(step.observation.splitlines()) >= 2
    assert not step.truncated
    step = env.step(call("check_status_bar"))
    assert step.truncated and not step.terminated
    with pytest.raises(RuntimeError, match="reset first"):
        env.step(call("done"))


def test_it_is_quiet_and_leaves_the_users_settings_alone(tmp_path):
    (tmp_path / ".env").write_text("TAU2_TEST_SECRET=1\n")
    code = (
        "import os, sys; before = dict(os.environ), os.getcwd()\n"
        "from agentevolve.environments.tau2 import make\n"
        "from agentevolve.load import load_task_set, tasks_of\n"
        "env, task = make(), tasks_of(load_task_set('tau2-telecom'), 'train')[0]\n"
        "env.reset(task); [env.step(action) for action in env.oracle(task)]\n"
        "assert (dict(os.environ), os.getcwd()) == before\n"
        "import loguru; loguru.logger.warning('heard')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    assert len(ran.stderr.splitlines()) == 1 and "heard" in ran.stderr
    assert "PYTHON_DOTENV_DISABLED" not in os.environ


def test_many_at_once_see_what_one_alone_sees():
    tasks = [ticket(seed) for seed in range(0, 114, 10)]
    alone = [play(make(), task, make().oracle(task)) for task in tasks]
    together: dict[str, tuple[list[str], float]] = {}

    def run(task: Task) -> None:
        env = make()
        together[task.id] = play(env, task, env.oracle(task))

    side_by_side(run, tasks)
    assert [together[task.id] for task in tasks] == alone


def test_a_seed_of_another_split_is_refused():
    env = make()
    for split, seed in (("train", 50), ("val", 49), ("test", 114), ("train", -1)):
        with pytest.raises(AgentevolveError, match="its seeds are"):
            env.reset(ticket(seed, split))


@pytest.mark.parametrize(
    ("data", "names"),
    [({"level": 1}, "known: policy, limit"), ({"policy": "none"}, "manual, workflow"), ({"limit": 201}, "settings.limit")],
)
def test_unusable_settings_name_the_field(data, names):
    with pytest.raises(AgentevolveError, match=names):
        check(data)
