"""A transformers folder without a GGUF acts, is fine-tuned and served again by torch."""

import kin
import pytest
import tiny
import torch

from agentevolve.local import adapter, catalog
from agentevolve.local.adapter import LoraSettings
from agentevolve.models.engines.transformers import serve
from agentevolve.models.lite import open_model
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Message

ASK = [Message(role="system", content="You play."), Message(role="user", content="Where to?")]
ACTIONS = ["go north", "go south", "take the lamp", "go north east"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    return kin.folder(tmp_path_factory.mktemp("weights") / "gemma", "gemma3_text")


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "adapter"
    rows = [tiny.example("Where to?", "take the lamp")]
    settings = LoraSettings(rank=4, epochs=20, learning_rate=2e-2)
    tiny.train(folder, rows, out, settings, seed=0, base=catalog.resolve(str(folder)).identity)
    return out


def test_it_answers_with_one_of_the_choices_and_as_often_as_the_model_would(folder):
    model = open_model(f"local/{folder}", threads=1)
    replies = [model.complete(ASK, choices=ACTIONS, temperature=5.0, seed=seed) for seed in range(12)]
    assert {one.text for one in replies} <= set(ACTIONS) and len({one.text for one in replies}) > 1
    assert {one.asked for one in replies} == {"choices"}
    assert replies[0].text == model.complete(ASK, choices=ACTIONS, temperature=5.0, seed=0).text
    assert replies[0].usage.prompt_tokens > 20 and 0 < replies[0].usage.completion_tokens <= 16
    assert model.count("abc") == 3
    model.close()
    assert model.complete(ASK, choices=ACTIONS[:1]).text == "go north"  # it starts again
    model.close()


def test_a_free_answer_is_as_long_as_it_may_be(folder):
    model = open_model(f"local/{folder}", threads=1)
    reply = model.complete(ASK, max_tokens=5, temperature=1.0)
    model.close()
    assert reply.asked == "free text" and reply.usage.completion_tokens <= 5


def test_an_adapter_acts_and_its_canary_is_checked(folder, trained, tmp_path):
    import shutil

    plain, learnt = (open_model(f"local/{folder}", adapter=one, threads=1) for one in (None, trained / adapter.GGUF))
    said = [[model.complete(ASK, choices=ACTIONS, temperature=1.0, seed=n).text for n in range(10)] for model in (plain, learnt)]
    assert said[1].count("take the lamp") == 10 > said[0].count("take the lamp")
    for model in (plain, learnt):
        model.close()
    odd = shutil.copytree(trained, tmp_path / "odd")
    info = adapter.read_adapter(odd)
    turned = [one.model_copy(update={"within": one.without, "without": one.within}) for one in info.canary]
    (odd / adapter.INFO).write_text(info.model_copy(update={"canary": tuple(turned)}).model_dump_json())
    with pytest.raises(AgentevolveError, match="the server answers with other weights than were trained"):
        open_model(f"local/{folder}", adapter=odd / adapter.GGUF, threads=1).complete(ASK)


def test_a_model_without_a_chat_template_is_refused_in_one_line(folder, tmp_path):
    import shutil

    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(AgentevolveError, match=f"{bare}: the model has no chat template, so it cannot answer"):
        serve(bare, threads=1)
