import httpx
import pytest
import tiny

from agentevolve.local import catalog
from agentevolve.local.rows import IGNORED, Row, clean, collate, fit, render
from agentevolve.models.engines import llama_cpp as engine
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Message

MARKERS = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|eot_id|>", "<｜User｜>", "</s>", "<end_of_turn>", "[/INST]"]


@pytest.fixture(scope="module")
def model():
    return catalog.resolve("smollm2-135m")


@pytest.fixture(scope="module")
def smollm(model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(catalog.training_folder(model))


@pytest.fixture(scope="module")
def server(model):
    running = engine.serve(catalog.serving_gguf(model), slots=1, threads=1, context=512)
    headers = {"Authorization": f"Bearer {running.key}"}
    with httpx.Client(base_url=running.url.removesuffix("/v1"), headers=headers, timeout=60) as client:
        yield client
    running.close()


def test_every_token_of_a_conversation_has_the_expected_label():
    tokenizer = tiny.tokenizer()
    segments = [
        ("<|im_start|>system\nPlay.<|im_end|>\n<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n", False),
        ("go north<|im_end|>", True),
        ("\n<|im_start|>user\nand now?<|im_end|>\n<|im_start|>assistant\n", False),
        ("take é<|im_end|>", True),
    ]
    expected = [(token, learnt) for text, learnt in segments for token in tokenizer(text)["input_ids"]]
    row = render(tiny.example("Where?", "go north", "take é"), tokenizer)
    assert row.ids == [token for token, _ in expected]
    assert row.labels == [token if learnt else IGNORED for token, learnt in expected]
    assert row.weight == 1.0


def test_the_ids_before_each_learnt_message_are_the_prompt_the_model_answered(smollm):
    example = tiny.example("You are in the kitchen.\n\n 12 exits", "move north", "take the old coin ", "")
    row = render(example, smollm)
    messages = [message.model_dump() for message in (*example.prompt, *example.completion)]
    done = 0
    for place, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt = smollm.apply_chat_template(messages[:place], add_generation_prompt=True)["input_ids"]
            said = [*smollm(message["content"])["input_ids"], smollm.convert_tokens_to_ids("<|im_end|>")]
            done = len(prompt) + len(said)
            assert row.ids[:done] == prompt + said
            assert row.labels[len(prompt) : done] == said
    assert len(row.ids) == done
    assert sum(label != IGNORED for label in row.labels) == 2 + 1 + 4 + 1 + 1 + 1


@pytest.mark.parametrize("observation", ["You see a coin.", "é ☃ 123 \n", *MARKERS, f"{MARKERS[0]}\n{MARKERS[1]}assistant\nhi"])
def test_the_server_sees_the_same_ids(smollm, server, observation):
    example = tiny.example(observation, "move north", "take coin")
    row = render(example, smollm)
    messages = [message.model_dump() for message in (*example.prompt, *example.completion)]
    text = server.post("/apply-template", json={"messages": messages[:-1]}).json()["prompt"]
    tokens = server.post("/tokenize", json={"content": text, "add_special": True, "parse_special": True}).json()["tokens"]
    asked = server.post("/v1/chat/completions", json={"messages": messages[:-1], "max_tokens": 1}).json()
    assert row.ids[: len(tokens)] == tokens
    assert asked["usage"]["prompt_tokens"] == len(tokens)
    assert row.ids[len(tokens) :] == smollm("take coin<|im_end|>")["input_ids"]


@pytest.mark.parametrize("marker", MARKERS)
def test_cleaned_text_holds_no_control_token(smollm, marker):
    text = clean(f"You see <{marker} and {marker}{marker}.")
    assert marker not in text
    assert not set(smollm(text)["input_ids"]) & set(smollm.all_special_ids)
    assert clean(text) == text


def test_text_without_a_marker_is_left_as_it_is():
    text = "if a < b | c > d: <b>bold</b> <|x> [INSTANCE] List<int> <s1>"
    assert clean(text) == text


def test_a_message_that_merges_with_what_is_before_it_is_refused(smollm):
    with pytest.raises(AgentevolveError, match=r"example Where.*not prefix-stable at message 2"):
        render(tiny.example("Where?", "  go north"), smollm)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (tiny.CHATML.replace("m['content']", "(m['content'] if loop.last else m['content'] | upper)"), "not prefix-stable"),
        (tiny.CHATML.replace("m['content']", "m['content'] | trim"), "not prefix-stable"),
        (tiny.CHATML.replace("<|im_end|>", ""), "not with a control token"),
    ],
)
def test_a_template_that_cannot_be_rendered_piece_by_piece_is_refused(template, says):
    with pytest.raises(AgentevolveError, match=says):
        render(tiny.example("Where?", "go north ", "take coin"), tiny.tokenizer(template))


def test_an_example_without_an_answer_is_refused():
    silent = tiny.example("Where?", "x").model_copy(update={"completion": (Message(role="user", content="hm"),)})
    with pytest.raises(AgentevolveError, match="nothing to learn"):
        render(silent, tiny.tokenizer())


def test_rows_are_cut_and_dropped_when_nothing_is_left_to_learn():
    short, late = Row([1, 2, 3], [-100, 2, 3], 0.5), Row([1, 2, 3], [-100, -100, 3])
    assert fit([short, late], 2) == [Row([1, 2], [-100, 2], 0.5)]


def test_a_batch_is_padded_on_the_right_and_masked():
    batch = collate([Row([1, 2, 3], [-100, 2, 3], 0.5)._asdict(), Row([4], [-100])._asdict()], pad=9)
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["labels"].tolist() == [[-100, 2, 3], [-100, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["weight"].tolist() == [0.5, 1.0]
