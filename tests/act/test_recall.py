"""What is shown of memory, message by message: for text worlds, free text and tool calls, native or not."""

import random

import pytest
from worlds import Corridor, Free, lamp, learner, make_tasks, new_run, use_model, walker

from agentevolve.act.agent import Attempt, play
from agentevolve.act.attempt import Plan, _trajectory
from agentevolve.act.prompting import conversation, lived_messages, transcript
from agentevolve.act.recall import shortened
from agentevolve.act.rollout import rollout
from agentevolve.local import catalog
from agentevolve.local.rows import IGNORED, alternating, render
from agentevolve.memory import HashEmbedder, open_memory
from agentevolve.models.lite import open_model
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.models.tools import Call, native, written
from agentevolve.policy import Policy, Recall
from agentevolve.protocols import Step
from agentevolve.records import Entry, Lived, Message, Task, Turn
from agentevolve.refine import cases, demos
from agentevolve.update import examples, recalling, remember

TASKS = make_tasks(6)
RULES = Message(role="system", content="You are playing a text game. Reply with your next action only.")


@pytest.fixture
def memory(tmp_path):
    with open_memory(tmp_path / "memory", embedder=HashEmbedder()) as opened:
        yield opened


def user(*lines: str) -> Message:
    return Message(role="user", content="\n".join(lines))


def said(text: str) -> Message:
    return Message(role="assistant", content=text)


def played(model, memory=None, world=Corridor, task=TASKS[3], seed=0, measured=False, **policy) -> Attempt:
    attempt = Attempt(task, Policy(model="random", **policy), memory, random.Random(seed), measured=measured)
    attempt.environment, attempt.model = world(), model
    return play(attempt)


def solved(tmp_path, n=1, world="Corridor", first=0, split="train", **data):
    """Solved attempts at the first tasks of the corridor."""
    run = new_run(tmp_path / f"solved-{world}-{split}", workers=1)
    found = rollout(Policy(model="oracle"), make_tasks(first + n, world, split, **data)[first:], run, phase="1/acquire")
    run.close()
    return found


def asked(model: ScriptedModel) -> list[Message]:
    """The messages before the first action."""
    return list(model.calls[0][0])


def test_a_recalled_attempt_is_shown_as_the_turns_that_it_was(memory, tmp_path):
    [won] = solved(tmp_path, length=2)
    memory.add(demos([won], 1))
    model = ScriptedModel(walker)
    attempt = played(model, memory)
    first, _ = won.turns
    assert asked(model) == [
        RULES,
        user(won.prompt, f"Actions: {', '.join(won.actions)}"),
        said("left"),
        user(first.observation, f"Actions: {', '.join(first.actions)}"),
        said("left"),
        user("That game was won. A new game:", attempt.prompt, f"Actions: {', '.join(attempt.actions)}"),
    ]
    assert attempt.recalled == ("demo/1/acquire/corridor/train/0/0",)
    assert attempt.context == "That game was won. A new game:"


def test_turns_alternate_for_templates_that_want_it():
    merged = alternating([RULES, user("a"), said("left"), user("b"), user("c"), said("right"), user("d")])
    assert merged == [RULES, user("a"), said("left"), user("b", "c"), said("right"), user("d")]


def test_several_attempts_are_one_conversation_with_the_nearest_last(memory, tmp_path):
    won = solved(tmp_path, 3, length=1)
    memory.add(demos(won, 1))
    model = ScriptedModel(walker)
    attempt = played(model, memory, recall=Recall(nearest={"demo": 3}))
    near = [entry.id for entry, _ in memory.recall(attempt.prompt, env=TASKS[0].env, k=3)]
    assert list(attempt.recalled) == near[::-1] and len(near) == 3
    openings = [message.content.partition("\nActions")[0] for message in asked(model)[1:] if message.role == "user"]
    shown = [one for id in near[::-1] for one in won if id.endswith(one.id)]
    assert openings == [shown[0].prompt, *(f"That game was won. A new game:\n{one.prompt}" for one in [*shown[1:], attempt])]
    again = played(ScriptedModel(walker), memory, recall=Recall(nearest={"demo": 3}))
    assert again.demos == attempt.demos


def test_actions_are_listed_in_a_demo_exactly_where_the_agent_s_own_are(memory, tmp_path):
    memory.add(demos(solved(tmp_path), 1))
    model = ScriptedModel(walker)
    played(model, memory, show_actions=False)
    assert not any("Actions:" in message.content for message in asked(model))


def test_in_free_text_a_demo_is_a_task_that_was_solved(memory, tmp_path):
    memory.add(demos(solved(tmp_path, world="Free", length=1), 1))
    model = ScriptedModel(["right"] * 3)
    attempt = played(model, memory, world=Free, task=make_tasks(2, "Free")[1])
    assert [message.role for message in asked(model)] == ["system", "user", "assistant", "user"]
    assert asked(model)[0].content == "You solve a task. Reply with your next action or answer only."
    assert asked(model)[-1] == user("That task was solved. A new task:", attempt.prompt)


def test_the_outcome_of_a_case_is_told(memory, tmp_path):
    [won] = solved(tmp_path, length=1)
    lost = won.model_copy(update={"reward": 0.0, "id": "1/acquire/corridor/train/0/1"})
    for one, told in ((won, "That game was won."), (lost, "That game was lost.")):
        with open_memory(tmp_path / told, embedder=HashEmbedder()) as kept:
            kept.add(cases([one], 1))
            attempt = played(ScriptedModel(walker), kept, recall=Recall(nearest={"case": 1}))
            assert attempt.context == f"{told} A new game:"


def test_what_is_no_attempt_stays_text_right_before_the_task(memory, tmp_path):
    [won] = solved(tmp_path, length=1)
    rule = Entry(id="i", kind="insight", key="k", text="Look for the lamp.", env=won.task.env)
    memory.add([*demos([won], 1), rule])
    model = ScriptedModel(walker)
    attempt = played(model, memory, recall=Recall(whole=("insight",)))
    assert attempt.recalled == ("i", f"demo/{won.id}")
    assert asked(model)[-1] == user(
        "That game was won.",
        "A rule learnt from earlier games: Look for the lamp.",
        "",
        "Now your game:",
        attempt.prompt,
        f"Actions: {', '.join(attempt.actions)}",
    )


def test_as_text_an_attempt_stands_in_one_block(memory, tmp_path):
    [won] = solved(tmp_path, length=1)
    memory.add(demos([won], 1))
    model = ScriptedModel(walker)
    attempt = played(model, memory, recall=Recall(as_turns=False))
    assert [message.role for message in asked(model)] == ["system", "user"]
    assert attempt.demos == () and transcript(won) in attempt.context
    assert attempt.context.startswith("An earlier game that was won:\n") and attempt.context.endswith("Now your game:")


class Shop:
    """A world of tool calls: buy the thing that is asked for."""

    def reset(self, task: Task):
        self.thing = f"thing {task.seed}"
        tool = {"type": "function", "function": {"name": "buy", "description": "Buy.", "parameters": {"type": "object"}}}
        return f"Please buy {self.thing}.", {"tools": [tool], "score": 0.0}

    def step(self, action: str) -> Step:
        return Step("It is yours.", 1.0, True, False, {"score": 1.0})

    def close(self) -> None:
        pass


@pytest.mark.parametrize("given_natively", [False, True])
def test_a_recalled_tool_call_is_a_tool_call(memory, given_natively):
    call = written([Call("buy", {"what": "thing 1"})])
    bought = Lived(prompt="Please buy thing 1.", turns=(Turn(action=call, observation="It is yours."),))
    text = "Please buy thing 1.\n> …"
    memory.add([Entry(id="d", kind="demo", key=bought.prompt, text=text, env="shop", task="t1", lived=bought)])

    class Model(ScriptedModel):
        native_tools = given_natively

    model = Model([call])
    task = Task(id="shop/val/2", env="shop", split="val", seed=2)
    played(model, memory, world=Shop, task=task)
    shown = asked(model)
    assert shown[1:] == [
        user("Please buy thing 1."),
        said(call),
        user("It is yours."),
        user("That task was solved. A new task:", "Please buy thing 2."),
    ]
    assert ('"name": "buy"' in shown[0].content) is not given_natively
    _, first, made, result, new = native(shown)
    assert (
        first == {"role": "user", "content": "Please buy thing 1.", "thinking": ""} or first["content"] == "Please buy thing 1."
    )
    assert made["tool_calls"][0]["function"] == {"name": "buy", "arguments": '{"what": "thing 1"}'}
    assert (result["role"], result["content"]) == ("tool", "It is yours.")
    assert (new["role"], new["content"]) == ("user", "That task was solved. A new task:\nPlease buy thing 2.")


def long(turns: int) -> Lived:
    return Lived(
        prompt="start", actions=("a", "b"), turns=tuple(Turn(action=f"do {n}", observation=f"saw {n}") for n in range(turns))
    )


def test_an_attempt_is_shortened_in_its_middle_and_says_so():
    assert shortened(long(6), 0) == long(6)
    messages = lived_messages(shortened(long(6), 3), True)
    assert messages == [
        user("start", "Actions: a, b"),
        said("do 0"),
        user("saw 0"),
        said("do 1"),
        user("saw 1", "(3 turns left out)", "saw 4"),
        said("do 5"),
        user("saw 5"),
    ]
    ends = [message.content for message in lived_messages(shortened(long(6), 4), True)]
    assert ends == ["start\nActions: a, b", "do 0", "saw 0\n(4 turns left out)\nsaw 4", "do 5", "saw 5"]


def test_a_demo_that_does_not_fit_is_shortened_and_counted(memory):
    held = long(9)
    memory.add([Entry(id="d", kind="demo", key="k", text="t", env=TASKS[0].env, lived=held)])
    sizes = {tokens: played(ScriptedModel(walker), memory, recall=Recall(tokens=tokens)) for tokens in (20, 60, 500)}
    looked = {tokens: attempt.looked[0] for tokens, attempt in sizes.items()}
    assert looked[500].shown and not looked[500].cut and len(sizes[500].demos) == 18
    assert looked[60].shown and looked[60].cut and len(sizes[60].demos) == 18 - 2 * looked[60].cut
    assert not looked[20].shown and looked[20].why == "does not fit into 20 tokens"
    assert (sizes[20].demos, sizes[20].recalled) == ((), ())
    used = sum(4 + -(-len(message.content) // 4) for message in sizes[60].demos)
    assert used <= 60 and looked[60].tokens == used and sizes[60].room == 60 - used


def test_what_was_thought_of_is_told_with_why_it_was_left_out(memory):
    env = TASKS[0].env
    texts = {"a": "x" * 40, "b": "x" * 40, "c": "y" * 400, "d": "z", "e": "far", "f": "farther"}
    memory.add(
        [
            Entry(id=id, kind="insight", key="Corridor " + "so " * n, text=text, env=env)
            for n, (id, text) in enumerate(texts.items())
        ]
    )
    attempt = played(ScriptedModel(walker), memory, recall=Recall(nearest={"insight": 4}, tokens=40))
    looked = {one.id: one for one in attempt.looked}
    assert set(looked) == set(texts) and all(-1 <= one.similarity <= 1 for one in attempt.looked)
    shown = [one for one in attempt.looked if one.shown]
    assert [one.id for one in shown] == list(attempt.recalled) and sum(one.tokens for one in shown) == 40 - attempt.room
    whys = [one.why.rstrip("0123456789 tokens") for one in attempt.looked if not one.shown]
    assert (
        whys.count("less near") == 2 and any("says the same as" in why for why in whys) and any("not fit" in why for why in whys)
    )


def test_tokens_are_those_of_the_model(memory):
    class Wordy(ScriptedModel):
        def count(self, text):
            return 100 * len(text)

    memory.add([Entry(id="d", kind="demo", key="k", text="t", env=TASKS[0].env, lived=long(2))])
    assert played(ScriptedModel(walker), memory).recalled == ("d",)
    assert played(Wordy(walker), memory).recalled == ()


def test_a_measured_task_s_own_solution_gives_way_to_the_next_nearest(memory, tmp_path):
    found = demos(solved(tmp_path, 3), 1)
    memory.add(found)
    for task, own in zip(make_tasks(3), found, strict=True):
        nearest = Recall(nearest={"demo": 1})
        practised = played(ScriptedModel(walker), memory, task=task, recall=nearest)
        assert practised.recalled == (own.id,)
        measured = played(ScriptedModel(walker), memory, task=task, measured=True, recall=nearest)
        assert own.id not in measured.recalled and len(measured.recalled) == 1
        for shuffled in (False, True):
            recall = Recall(nearest={"demo": 1}, shuffled=shuffled)
            assert own.id not in played(ScriptedModel(walker), memory, task=task, measured=True, recall=recall).recalled


OWN = [Recall(own={"demo": 1}, nearest={}), Recall(whole=("demo",), nearest={}), Recall(nearest={"demo": 9})]


@pytest.mark.parametrize("recall", OWN)
def test_a_task_s_own_solution_is_never_shown_when_it_is_measured(memory, tmp_path, recall):
    [own] = demos(solved(tmp_path), 1)
    memory.add([own])
    task = make_tasks(1)[0]
    assert played(ScriptedModel(walker), memory, task=task, recall=recall).recalled == (own.id,)
    assert played(ScriptedModel(walker), memory, task=task, recall=recall, measured=True).recalled == ()


def test_measuring_hides_a_task_s_own_solution_from_a_rollout(tmp_path):
    run = new_run(tmp_path / "run", workers=1)
    policy = remember(Policy(model="random", recall=Recall(whole=("demo",), nearest={})), demos(solved(tmp_path), 1), run)
    use_model(run, ScriptedModel(walker), policy)
    practised = rollout(policy, make_tasks(1), run, phase="1/acquire")
    measured = rollout(policy, make_tasks(1), run, phase="val", measuring=True)
    run.close()
    assert [len(one.recalled) for one in practised + measured] == [1, 0]


def test_equal_texts_are_shown_once(memory):
    env = TASKS[0].env
    memory.add([Entry(id=id, kind="insight", key=id, text="the same", env=env, task=id) for id in ("a", "b")])
    assert played(ScriptedModel(walker), memory, recall=Recall(whole=("insight",))).recalled == ("a",)


def waits(messages, choices):
    return "wait"


@pytest.mark.parametrize("when", ["start", "each", "stuck"])
def test_when_memory_is_looked_into(memory, when):
    env = TASKS[0].env
    memory.add([Entry(id=f"i{n}", kind="insight", key=f"k{n}", text=f"rule {n}", env=env) for n in range(4)])
    model = ScriptedModel(waits)
    recall = Recall(nearest={"insight": 1}, when=when)
    attempt = played(model, memory, recall=recall, task=make_tasks(1, limit=4)[0])
    later = [[one.id for one in turn.looked if one.shown] for turn in attempt.turns]
    # a wait changes nothing, so each of its turns is stuck; after the last one nobody acts any more
    assert [len(ids) for ids in later] == ([0] * 4 if when == "start" else [1, 1, 1, 0])
    assert len(attempt.recalled) == {"start": 1, "each": 4, "stuck": 3}[when] == len(set(attempt.recalled))
    for before, after in zip(model.calls, model.calls[1:], strict=False):
        assert after[0][: len(before[0])] == before[0]  # prompts only grow at their end
    for turn, (messages, _) in zip(attempt.turns, model.calls[1:], strict=False):
        assert ("Your game goes on:" in messages[-1].content) is bool(turn.context)
        assert messages[-1].content.endswith(f"Actions: {', '.join(turn.actions)}")


def test_what_is_recalled_over_an_attempt_stays_within_its_tokens(memory):
    env = TASKS[0].env
    memory.add([Entry(id=f"i{n}", kind="insight", key=f"k{n}", text="x" * 40, env=env, task=str(n)) for n in range(3)])
    memory.add([Entry(id=f"j{n}", kind="insight", key=f"k{n}", text=f"{n}" * 40, env=env) for n in range(8)])
    attempt = played(ScriptedModel(waits), memory, recall=Recall(nearest={"insight": 1}, when="each", tokens=30))
    assert len(attempt.recalled) == 3 and attempt.room == 0


def test_a_later_recall_is_kept_in_a_row_or_stripped_from_it(memory):
    env = TASKS[0].env
    memory.add([Entry(id=f"i{n}", kind="insight", key=f"k{n}", text=f"rule {n}", env=env) for n in range(4)])
    model = ScriptedModel(walker)
    attempt = played(model, memory, recall=Recall(nearest={"insight": 1}, when="each"))
    lived = _trajectory(Plan("1/acquire/corridor/train/3/0", "1/acquire", TASKS[3], 0, 0), attempt, "", 0.0)
    kept, bare = conversation(lived, keep_context=True), conversation(lived, keep_context=False)
    assert [*kept[0], *kept[1]][:-1] == list(model.calls[-1][0])
    assert not any("rule" in message.content for message in [*bare[0], *bare[1]])
    assert [m.content for m in kept[1] if m.role == "assistant"] == [m.content for m in bare[1] if m.role == "assistant"]


def test_a_share_of_the_rows_keeps_memory(tmp_path):
    run = new_run(tmp_path / "run", workers=1)
    won = solved(tmp_path, 30)
    policy = remember(Policy(model="random", recall=Recall(nearest={"demo": 1})), demos(won, 1), run)
    use_model(run, ScriptedModel(learner), policy)
    told = recalling(won, policy, run)
    run.close()
    for one in told:
        assert len(one.recalled) == 1 and not one.recalled[0].endswith(f"{one.task.id}/0")
    with_memory = [len(row.prompt) > 2 for row in examples(told, keep_memory=0.5)]
    assert 8 <= sum(with_memory) <= 22
    assert with_memory == [len(row.prompt) > 2 for row in examples(told, keep_memory=0.5)]
    assert all(len(row.prompt) > 2 for row in examples(told, keep_memory=1))
    assert not any(len(row.prompt) > 2 for row in examples(told))
    for one, row in zip(won, examples(told, keep_memory=1), strict=True):
        assert row.completion == examples([one])[0].completion  # what is learnt is the same with and without
        assert row.prompt[-1].content.endswith(examples([one])[0].prompt[-1].content)


def test_a_policy_without_memory_recalls_nothing_for_its_rows(tmp_path):
    run = new_run(tmp_path / "run", workers=1)
    won = solved(tmp_path, 2)
    assert recalling(won, Policy(model="random"), run) == won
    run.close()


def test_the_corridor_s_lamp_is_where_its_seed_says():
    assert [lamp(task) for task in TASKS[:2]] == ["left", "right"]


@pytest.mark.parametrize("name", ["smollm2-135m", pytest.param("qwen2.5-coder-0.5b", marks=pytest.mark.slow)])
@pytest.mark.parametrize("recall", [Recall(), Recall(as_turns=False), Recall(nearest={"demo": 1, "insight": 1}, when="each")])
def test_what_a_server_was_shown_is_token_by_token_what_training_sees(memory, tmp_path, name, recall):
    from transformers import AutoTokenizer

    won = solved(tmp_path, 2, length=2)
    rules = [
        Entry(id=f"i{n}", kind="insight", key=f"k{n}", text=f"Rule {n}: <|im_end|> walk.", env=won[0].task.env) for n in range(3)
    ]
    memory.add(demos(won, 1) + rules)
    model = open_model(f"local/{name}", slots=1, threads=1)
    try:
        attempt = played(model, memory, recall=recall, task=make_tasks(4, limit=3)[3])
    finally:
        model.close()
    lived = _trajectory(Plan("1/acquire/corridor/train/3/0", "1/acquire", TASKS[3], 0, 0), attempt, "", 0.0)
    folder, gguf = catalog.tokenizer_files(catalog.resolve(name))
    tokenizer = AutoTokenizer.from_pretrained(folder, **({"gguf_file": gguf} if gguf else {}))
    row = render(examples([lived], keep_memory=1, solved=False)[0], tokenizer)
    starts = [n for n, label in enumerate(row.labels) if label != IGNORED and row.labels[n - 1] == IGNORED]
    assert starts == [turn.usage.prompt_tokens for turn in attempt.turns]
    assert attempt.recalled and len(starts) == len(attempt.turns)
