"""What a run has learnt in weights is listed with its lineage and verdicts, and can be taken to other tools."""

import json

import kin
import pytest
import tiny
import torch
from worlds import make_tasks

from agentevolve.act.rollout import rollout
from agentevolve.local import adapter, catalog
from agentevolve.local.adapter import LoraSettings
from agentevolve.local.merge import merge_lora
from agentevolve.local.train import load_tokenizer
from agentevolve.models.engines import llama_cpp as engine
from agentevolve.policy import Policy
from agentevolve.run.folder import Run

WITHIN = {"n": 6, "mean": 0.5, "low": 0.1, "high": 0.8}


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A run with an adapter, one that goes on from it, and one merged from both, of which the gate promoted the second."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("learnt")
    base = kin.folder(place / "base", "qwen2")
    kin.gguf_of(base, base / "model.gguf", "qwen2")
    identity, run = catalog.resolve(str(base)).identity, Run(place / "r", quiet=True)
    rows, settings = [tiny.example("Where is the path?", "this way")], LoraSettings(rank=4, epochs=3, learning_rate=2e-2)
    first, second, merged = (run.folder / "adapters" / name for name in ("round-1", "round-2", "soup"))
    first.parent.mkdir()
    tiny.train(base, rows, first, settings, seed=0, base=identity)
    tiny.train(base, rows, second, settings, seed=0, base=identity, start=first)
    merge_lora(base, [first, second], [0.5, 0.5], merged, base=identity)
    for number, path, passed in ((1, first, False), (2, second, True)):
        ids = {}
        for arm in ("base", "distilled"):
            made = rollout(Policy(model="oracle"), make_tasks(2, split="val"), run, phase=f"{number}/{arm}", measuring=True)
            stamp = made[0].policy.model_copy(update={"adapter": path.name})
            for one in made if arm == "distilled" else []:
                run.add(one.model_copy(update={"id": f"{one.id}/{path.name}", "policy": stamp}))
            ids[arm] = [one.id + (f"/{path.name}" if arm == "distilled" else "") for one in made]
        run.once(f"evaluation {number}/val", lambda ids=ids: ids)
        verdict = {
            "promoted": "distilled" if passed else None,
            "holder": "base",
            "level": 0.95,
            "differences": {"distilled": WITHIN},
        }
        run.once(f"gate {number}/val", lambda verdict=verdict: verdict)
    run.close()
    (run.folder / "config.yaml").write_text(f"tasks: coin\nmodel: local/{base}\n")
    return run.folder, base


@pytest.fixture
def asked(ask):
    return lambda *words: ask("policy", *words)


def test_the_list_has_lineage_and_verdicts(learnt, asked):
    run, base = learnt
    code, out, _ = asked("list", run, "--json")
    first, second, merged = json.loads(out)
    assert code == 0 and [one["name"] for one in (first, second, merged)] == ["round-1", "round-2", "soup"]
    assert second["start"] == first["identity"] and first["start"] is None
    assert first["children"] == ["round-2", "soup"] and second["children"] == ["soup"] and merged["children"] == []
    assert [one["objective"] for one in (first, second, merged)] == ["sft", "sft", "merge"]
    assert [[(one["round"], one["promoted"]) for one in of["verdicts"]] for of in (first, second, merged)] == [
        [(1, False)],
        [(2, True)],
        [],
    ]
    assert {one["base"] for one in (first, second, merged)} == {catalog.resolve(str(base)).identity}
    code, out, _ = asked("list", run)
    assert code == 0 and "distilled: promoted (+50 points [+10, +80] over base, 95% interval)" in " ".join(out.split())


def test_one_is_shown_whole_and_an_unknown_one_refused(learnt, asked):
    run, _ = learnt
    assert json.loads(asked("show", run, "round-1", "--json")[1])["trajectories"] == ["trajectory Where is the path?"]
    code, _, err = asked("show", run, "round-9")
    assert code == 2 and err == f"error: {run}: no adapter 'round-9'; known: round-1, round-2, soup\n"


@pytest.fixture
def ids(learnt):
    return load_tokenizer(learnt[1])("Where is the path?", return_tensors="pt")["input_ids"]


def told(model, ids):
    with torch.no_grad():
        return model.eval()(ids).logits[0, -1].log_softmax(-1)


def test_what_is_exported_answers_alike_in_peft_transformers_and_llama_cpp(learnt, asked, tmp_path, ids):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run, base = learnt
    for form in ("peft", "merged", "gguf"):
        assert asked("export", run, "round-2", "--as", form, "--out", tmp_path / form)[0] == 0
    plain = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    before = told(plain, ids)
    ours = told(PeftModel.from_pretrained(plain, run / "adapters" / "round-2"), ids)
    assert (ours - before).abs().max() > 0.5
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="float32"), tmp_path / "peft")
    assert torch.allclose(told(theirs, ids), ours, atol=1e-5)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.allclose(told(merged, ids), ours, atol=1e-3)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template
    running = engine.serve(base / "model.gguf", adapter=tmp_path / "gguf", slots=1, threads=1, context=256)
    served = running.likeliest(ids[0].tolist(), 1.0)
    running.close()
    assert len(served) > 50 and all(ours[token].item() == pytest.approx(chance, abs=2e-2) for token, chance in served.items())
    said = (tmp_path / "peft" / "README.md").read_text()
    assert (
        said.startswith("---\nbase_model: ")
        and "round 2, distilled: promoted (+50 points [+10, +80] over base, 95% interval)" in said
    )
    assert sorted(path.name for path in (tmp_path / "peft").iterdir()) == ["README.md", adapter.CONFIG, adapter.WEIGHTS]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--as", "onnx", "--out", "{new}"), "--as: 'onnx' is not known; known: peft, merged, gguf"),
        (("--out", "{old}"), "exists already"),
        (("--model", "local/smollm2-135m", "--out", "{new}"), "was trained on"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_nothing_is_written(learnt, asked, tmp_path, words, why):
    run, _ = learnt
    (tmp_path / "old").mkdir()
    given = [word.format(new=tmp_path / "new", old=tmp_path / "old") for word in words]
    code, _, err = asked("export", run, "round-1", *given)
    assert code == 2 and why in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["old"] and not list((tmp_path / "old").iterdir())
