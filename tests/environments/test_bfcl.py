"""BFCL's APIs: judged as the package judges, called without evaluating anything, and nothing left behind in its modules."""

import decimal
import importlib
import json
import random
import time
import uuid

import pytest
from worlds import side_by_side

pytest.importorskip("mpmath")

from agentevolve.environments.bfcl import SEEDS, Bfcl, check, make
from agentevolve.environments.support import bfcl as _bfcl
from agentevolve.environments.support.bfcl import APIS, CATEGORIES, ORDER, World, named, parsed, rows, tools
from agentevolve.models.tools import Call, written
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Task


def bfcl(seed: int, split: str = "", **data) -> Task:
    split = split or next(split for split, seeds in SEEDS.items() if seed in seeds)
    return Task(id=f"bfcl/{split}/{seed}", env="bfcl", split=split, seed=seed, data=data)


def seed_of(number: int) -> int:
    """The seed of the package's task with this number."""
    return ORDER.index(number)


def with_api(*names: str) -> Task:
    """The first task whose APIs are these."""
    asked, _ = rows("base")
    return bfcl(next(seed for seed, number in enumerate(ORDER) if set(asked[number]["involved_classes"]) == set(names)))


def call(name: str, **arguments) -> str:
    return written([Call(name, arguments)])


def play(env: Bfcl, task: Task, actions: list[str]) -> tuple[list[str], float]:
    """What was seen, and the score at the end."""
    seen, score = [env.reset(task)[0]], 0.0
    for action in actions:
        step = env.step(action)
        seen.append(step.observation)
        score = step.info["score"]
    return seen, score


def varied(turns: list[list[Call]], dice: random.Random) -> list[list[Call]]:
    """A solution as an agent might get it nearly right: calls left out, said twice, swapped or with another argument."""
    turns = [list(turn) for turn in turns]
    for _ in range(dice.randint(0, 2)):
        turn = dice.choice(turns)
        if not turn:
            continue
        place = dice.randrange(len(turn))
        change = dice.choice(("drop", "twice", "swap", "argument", "move"))
        if change == "drop":
            del turn[place]
        elif change == "twice":
            turn.insert(place, turn[place])
        elif change == "swap":
            turn.reverse()
        elif change == "move":
            dice.choice(turns).append(turn.pop(place))
        elif given := turn[place].arguments:
            turn[place] = Call(turn[place].name, given | {dice.choice(list(given)): dice.choice(["x", 1, 2.5, True])})
    return turns


def judged(turns: list[list[Call]], number: int, category: str) -> bool:
    """What the package's own checker says of these calls."""
    checker = importlib.import_module("bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker")
    asked, solutions = rows(category)
    said = [
        [[f"{one.name}({', '.join(f'{key}={value!r}' for key, value in one.arguments.items())})"] for one in turn]
        for turn in turns
    ]
    name = f"multi_turn_{category}"
    return checker.multi_turn_checker(said, solutions[number]["ground_truth"], asked[number], name, f"run{uuid.uuid4().hex}")[
        "valid"
    ]


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_score_is_the_packages_own(category):
    env, dice, scores = make(), random.Random(category), []
    _, solutions = rows(category)
    for seed in range(200):
        number = ORDER[seed]
        solution = [[parsed(text) for text in turn] for turn in solutions[number]["ground_truth"]]
        turns = varied([[Call(name, named(name, *given)) for name, *given in turn] for turn in solution], dice)
        actions = [written([one]) for turn in turns for one in (*turn, Call("end_turn", {}))]
        _, score = play(env, bfcl(seed, category=category, limit=200), actions)
        assert score == float(judged(turns, number, category)), (number, turns)
        scores.append(score)
    assert 50 < sum(scores) < 150


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_oracle_solves_every_task(category):
    env = make()
    for seed in range(200):
        task = bfcl(seed, category=category)
        assert play(env, task, env.oracle(task))[1] == 1.0, task.id


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_task_has_one_number_in_all_categories_and_its_like_stay_in_its_split(category):
    asked, solutions = rows(category)
    assert sorted(ORDER) == list(range(200))
    split = {ORDER[seed]: split for split, seeds in SEEDS.items() for seed in seeds}
    first: dict[str, int] = {}
    for number, (row, solution) in enumerate(zip(asked, solutions, strict=True)):
        assert row["id"] == solution["id"] == f"multi_turn_{category}_{number}"
        requests = ["".join(filter(str.isalnum, messages[0]["content"].lower())) for messages in row["question"]]
        for text in (json.dumps(row["initial_config"], sort_keys=True), *requests):
            assert split[first.setdefault(text, number)] == split[number]


def test_every_function_is_documented_with_the_names_it_takes():
    apis = list(APIS)
    listed = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools(apis)}
    assert listed.pop("end_turn")["properties"] == {}
    for name, parameters in listed.items():
        assert not name.startswith("_")
        assert set(_bfcl._signature(name).parameters) == set(parameters["properties"])
        assert set(parameters["required"]) <= set(parameters["properties"])
    kinds = {part["type"] for parameters in listed.values() for part in (parameters, *parameters["properties"].values())}
    assert kinds <= {"object", "array", "string", "number", "integer", "boolean"}


@pytest.mark.parametrize(
    ("action", "answer"),
    [
        (call("_load_scenario", scenario={}), "there is no function '_load_scenario'"),
        (call("__class__"), "there is no function '__class__'"),
        (call("root"), "there is no function 'root'"),
        (call("post_tweet", content="not of this task"), "there is no function 'post_tweet'"),
        (call("cd", folder="x", self=1), "unexpected keyword argument"),
        (call("cd"), "missing a required argument: 'folder'"),
        (call("cd", folder=["x"]), "Error during execution"),
        ('{"name": "cd", "arguments": ["x"]}', "are not a mapping"),
        ('{"name": "cd", "arguments": {"folder": "\\ud800"}}', "No such file or directory"),
        ('{"name": "cd", "arguments": {"folder": ' + "[" * 900 + "]" * 900 + "}}", "Error during execution"),
        ('{"name": "cd", ', "this is not the JSON of a call"),
        ("[]", "this is not the JSON of a call"),
    ],
)
def test_what_cannot_be_called_is_answered_and_the_turn_goes_on(action, answer):
    env, task = make(), with_api("GorillaFileSystem")
    solution = env.oracle(task)
    env.reset(task)
    step = env.step(action)
    assert answer in step.observation
    step.observation.encode()
    for one in solution:
        step = env.step(one)
    assert step.terminated and step.info["score"] == 1.0


def test_solutions_are_read_as_literals_only():
    assert parsed("sort('a.txt')") == ("sort", ("a.txt",), {})
    assert parsed("add(a=-1, b=[2, {'c': None}])") == ("add", (), {"a": -1, "b": [2, {"c": None}]})
    for text in ("sort(open('a'))", "a.b()", "[x]", "sort(a if a else b)", "(lambda: 1)()"):
        with pytest.raises(ValueError):
            parsed(text)


def test_text_ends_a_turn_and_calls_after_the_end_are_not_made():
    env, task = make(), with_api("GorillaFileSystem")
    requests = [messages[0]["content"].strip() for messages in rows("base")[0][ORDER[task.seed]]["question"]]
    assert env.reset(task)[0] == requests[0]
    step = env.step(f"[{call('pwd')}, {call('end_turn')}, {call('mkdir', dir_name='late')}]")
    assert step.observation.split("\n", 1)[1] == requests[1]
    assert "late" not in env.step(call("ls")).observation
    for request in [*requests[2:], "The conversation is over."]:
        step = env.step("Done.")
        assert step.observation == request
    assert step.terminated and step.info["score"] == 0.0
    with pytest.raises(RuntimeError, match="reset first"):
        env.step("again")


def test_the_limit_truncates():
    env = make()
    env.reset(bfcl(0, limit=2))
    assert not env.step(call("pwd")).truncated
    assert env.step(call("pwd")).truncated


def test_arithmetic_without_end_is_refused():
    env, task = make(), with_api("GorillaFileSystem", "MathAPI")
    env.reset(task)
    started = time.monotonic()
    for action in (
        call("power", base=10, exponent=10**9),
        call("power", base=10**31, exponent=1000),
        call("logarithm", value=2, base=10, precision=10**9),
        call("logarithm", value=2, base=10, precision="1000000000"),
        call("logarithm", value="1e1000000000000", base=10, precision=5),
        call("square_root", number=2, precision=float("inf")),
        call("round_number", number=5, decimal_places=-(10**9)),
    ):
        assert "is no number that" in env.step(action).observation
    assert time.monotonic() - started < 1
    assert "1024" in env.step(call("power", base=2, exponent=10)).observation
    assert "Error during execution" in env.step(call("power", base=10**30, exponent=1000)).observation


def test_undocumented_fields_are_refused_one_by_one():
    env, task = make(), with_api("TravelAPI", "TicketAPI")
    env.reset(task)
    step = env.step(call("edit_ticket", ticket_id=1, updates={"b": 1, "a": 2, "c": 3}))
    assert step.observation == "Error: 'b' is no field that edit_ticket knows"
    assert not env.step(call("edit_ticket", ticket_id=1, updates={"status": "Open"})).observation.startswith("Error: ")
    assert "Error during execution" in env.step(call("edit_ticket", ticket_id=1, updates=None)).observation


def test_precision_set_for_one_call_is_gone_after_it():
    import mpmath

    env, task = make(), with_api("GorillaFileSystem", "MathAPI")
    env.reset(task)
    before = mpmath.mp.prec, decimal.getcontext().prec
    assert (
        "1.4142135623730950488016887242096980785696718753769" in env.step(call("square_root", number=2, precision=50)).observation
    )
    assert (
        "0.3010299956639811952137388947244930267681898814"
        in env.step(call("logarithm", value=2, base=10, precision=50)).observation
    )
    assert (mpmath.mp.prec, decimal.getcontext().prec) == before


def test_what_one_task_adds_to_a_default_list_is_not_in_the_next():
    env = make()
    task = next(
        bfcl(seed)
        for seed, number in enumerate(ORDER)
        if rows("base")[0][number]["initial_config"].get("TwitterAPI", {}).get("password")
    )
    config = rows("base")[0][ORDER[task.seed]]["initial_config"]["TwitterAPI"]
    seen = []
    for _ in range(2):
        env.reset(task)
        env.step(call("authenticate_twitter", username=config["username"], password=config["password"]))
        seen.append(json.loads(env.step(call("post_tweet", content="hello")).observation))
        env.step(call("mention", tweet_id=seen[-1]["id"], mentioned_usernames=["@bob"]))
    assert seen[0] == seen[1]
    assert seen[0]["mentions"] == []


def test_what_one_task_does_to_the_padding_is_not_in_the_next():
    number = next(number for number in ORDER if rows("base")[0][number]["involved_classes"] == ["TravelAPI"])
    row, seen = rows("long_context")[0][number], []
    for _ in range(2):
        world = World(row)
        travel = world.apis["TravelAPI"]
        seen.append(world.answer(Call("get_all_credit_cards", {})))
        for card in travel.credit_card_list.values():
            card["balance"] = 0
    assert seen[0] == seen[1]
    assert len(seen[0]) > 5 * len(World(rows("base")[0][number]).answer(Call("get_all_credit_cards", {})))


def test_a_folder_inside_itself_fails_the_task_and_nothing_else():
    env, task = make(), with_api("GorillaFileSystem")
    env.reset(task)
    env.step(call("mkdir", dir_name="loop"))
    env.step(call("cp", source="loop", destination="loop"))
    assert "Error" in env.step(call("find")).observation
    for _ in range(10):
        step = env.step("")
        if step.terminated:
            break
    assert step.terminated and step.info["score"] == 0.0


def test_many_at_once_see_what_one_alone_sees():
    tasks = [bfcl(seed, category="long_context") for seed in range(12)]
    alone = [play(make(), task, make().oracle(task)) for task in tasks]
    together: dict[str, tuple[list[str], float]] = {}

    def run(task: Task) -> None:
        env = make()
        for _ in range(3):
            together[task.id] = play(env, task, env.oracle(task))

    side_by_side(run, tasks)
    assert [together[task.id] for task in tasks] == alone


def test_a_seed_of_another_split_is_refused():
    env = make()
    for split, seed in (("train", 100), ("val", 99), ("test", 200), ("train", -1)):
        with pytest.raises(AgentevolveError, match="its seeds are"):
            env.reset(bfcl(seed, split))


@pytest.mark.parametrize(
    ("data", "names"),
    [({"level": 1}, "known: category, limit"), ({"category": "miss_func"}, "base, miss_param"), ({"limit": 0}, "settings.limit")],
)
def test_unusable_settings_name_the_field(data, names):
    with pytest.raises(AgentevolveError, match=names):
        check(data)
