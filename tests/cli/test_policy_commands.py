"""What a run has learnt in weights is listed with its lineage and verdicts, and can be taken to other tools."""

import json
import os
import shutil

import kin
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from worlds import make_tasks

from agentevolve.act.rollout import rollout
from agentevolve.local import adapter, catalog
from agentevolve.local.adapter import LoraSettings
from agentevolve.local.merge import merge_lora
from agentevolve.local.train import load_tokenizer
from agentevolve.models.engines import llama_cpp as engine
from agentevolve.policy import Policy
from agentevolve.records import Usage
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
            phase, tasks = f"{number}/{arm}", make_tasks(2, split="val")
            made = rollout(Policy(model="oracle"), tasks, run, phase=phase, luck=str(number), measuring=True)
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
    served = running.chances(ids[0].tolist(), [], 1.0)
    running.close()
    assert len(served) > 50 and all(ours[token].item() == pytest.approx(chance, abs=2e-2) for token, chance in served.items())
    said = (tmp_path / "peft" / "README.md").read_text()
    assert (
        said.startswith("---\nbase_model: ")
        and "round 2, distilled: promoted (+50 points [+10, +80] over base, 95% interval)" in said
    )
    assert sorted(path.name for path in (tmp_path / "peft").iterdir()) == ["README.md", adapter.CONFIG, adapter.WEIGHTS]


def test_a_seed_of_a_run_and_a_copy_of_it_are_as_good_as_the_run(learnt, asked, tmp_path):
    run, _ = learnt
    seed = tmp_path / "all" / "seed-0"
    shutil.copytree(run, seed, ignore=shutil.ignore_patterns(".*"))
    (seed / "config.yaml").rename(tmp_path / "all" / "config.yaml")
    for name, age in (("round-1", 300), ("round-2", 200)):  # round-2 was written first, as a copy may have it
        os.utime(seed / "adapters" / name / adapter.INFO, (age, age))
    writing = Run(seed, quiet=True)
    for name in ("round-1", "round-2"):
        writing.spend(f"train/{name}", Usage(trained_tokens=1))
    writing.close()
    code, out, _ = asked("list", seed, "--json")
    assert (code, [one["name"] for one in json.loads(out)][:2]) == (0, ["round-1", "round-2"])
    assert asked("export", seed, "round-2", "--out", tmp_path / "out") == (0, f"{tmp_path / 'out'}\n", "")


def test_two_adapters_are_shown_beside_each_other(learnt, asked):
    run, _ = learnt
    found = json.loads(asked("diff", run, "round-1", "round-2", "--json")[1])
    assert (found["names"], found["settings"], found["rows"]) == (["round-1", "round-2"], {}, [0, 1, 0])
    changes = []
    for name in ("round-1", "round-2"):
        tensors = load_file(run / "adapters" / name / adapter.WEIGHTS)
        layers = {key.replace(".lora_A.", ".lora_{}.") for key in tensors if ".lora_A." in key}
        change = [2 * 16 / 4 * tensors[layer.format("B")] @ tensors[layer.format("A")] for layer in sorted(layers)]
        changes.append(torch.cat([one.flatten() for one in change]).double())
    one, other = changes
    like = found["likeness"]
    assert like["size"] == pytest.approx(one.norm().item(), rel=1e-5)
    assert like["apart"] == pytest.approx((one - other).norm().item(), rel=1e-3)
    assert like["cosine"] == pytest.approx(torch.cosine_similarity(one, other, 0).item(), rel=1e-5)
    assert 0.2 < like["cosine"] < 0.999
    code, out, _ = asked("diff", run, "round-1", "soup")
    assert code == 0 and "size of the change" in out and "distilled: not promoted" in " ".join(out.split())


def test_an_earlier_policy_is_put_back_and_the_report_says_so(learnt, asked, ask, tmp_path):
    run = shutil.copytree(learnt[0], tmp_path / "run")
    code, out, err = asked("rollback", run, "0", "--why", "it shouts")
    assert (code, out, err) == (0, f"{run}: taken back after round 2: the base is in place (it shouts)\n", "")
    said = ask("report", run)
    assert "policy, taken back after round 2: the base is in place (it shouts)" in said[1], said
    code, _, err = asked("rollback", run, "2")
    assert code == 2 and err == f"error: {run}: no earlier round 2; known: 0 (the base) to 1\n"


def test_what_others_trained_is_taken_in_and_answers_alike(learnt, asked, tmp_path, ids):
    """Out to PEFT's form, changed there as another tool would write it, and in again."""
    run, base = learnt
    asked("export", run, "round-2", "--out", tmp_path / "peft")
    config = json.loads((tmp_path / "peft" / adapter.CONFIG).read_text())
    kept = {key: config[key] for key in ("peft_type", "r", "lora_alpha", "target_modules")}
    (tmp_path / "peft" / adapter.CONFIG).write_text(json.dumps(kept | {"base_model_name_or_path": "org/model"}))
    code, out, err = asked("import", tmp_path / "peft", "--out", tmp_path / "in", "--model", f"local/{base}")
    assert (code, err) == (0, "") and f"--adapter {tmp_path / 'in'}" in out
    ours, theirs = adapter.read_adapter(run / "adapters" / "round-2"), adapter.read_adapter(tmp_path / "in")
    assert theirs.brought and theirs.identity == ours.identity and theirs.files[adapter.GGUF] == ours.files[adapter.GGUF]
    assert (theirs.base, theirs.examples, theirs.settings.rank) == (ours.base, (), 4)
    assert [probe.within for probe in theirs.canary] == [pytest.approx(probe.within, abs=2e-3) for probe in ours.canary]
    code, _, err = asked("import", tmp_path / "peft", "--out", tmp_path / "in", "--model", f"local/{base}")
    assert code == 2 and "exists already" in err


def broken(folder, what):
    """Break a LoRA folder of PEFT."""
    config = json.loads((folder / adapter.CONFIG).read_text())
    weights = load_file(folder / adapter.WEIGHTS)
    name = next(iter(weights))
    changed = {
        "another base": {"base_model_name_or_path": "0" * 64},
        "DoRA": {"use_dora": True},
        "no rank": {"r": None},
        "another rank": {"r": 3},
    }
    if what in changed:
        (folder / adapter.CONFIG).write_text(json.dumps(config | changed[what]))
    elif what == "no config":
        (folder / adapter.CONFIG).unlink()
    elif what == "a list":
        (folder / adapter.CONFIG).write_text("[]")
    elif what == "a pickle":
        (folder / adapter.WEIGHTS).rename(folder / "adapter_model.bin")
    elif what == "torn":
        (folder / adapter.WEIGHTS).write_bytes((folder / adapter.WEIGHTS).read_bytes()[:100])
    elif what == "half a pair":
        save_file({key: value for key, value in weights.items() if key != name}, folder / adapter.WEIGHTS)
    elif what == "another layer":
        save_file({key.replace("layers.0.", "layers.9."): value for key, value in weights.items()}, folder / adapter.WEIGHTS)
    elif what == "another size":
        wide = {key: torch.zeros(4, 7) if ".lora_A." in key else value for key, value in weights.items()}
        save_file(wide, folder / adapter.WEIGHTS)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("another base", "was trained on " + "0" * 64),
        ("DoRA", "adapter_config.json: use_dora is True; known: False, None"),
        ("no rank", "adapter_config.json: rank: "),
        ("another rank", "is not one of a LoRA pair of rank 3"),
        ("no config", "not a LoRA folder of PEFT: adapter_config.json is missing"),
        ("a list", "a list, not a mapping"),
        ("a pickle", "adapter_model.safetensors is missing; weights are read as safetensors alone"),
        ("torn", "adapter_model.safetensors: not readable"),
        ("half a pair", "is not one of a LoRA pair of rank 4"),
        (
            "another layer",
            "adapter_model.safetensors: base_model.model.model.layers.9.mlp.down_proj.lora_A.weight is no layer of",
        ),
        ("another size", "its layers are not those of"),
    ],
)
def test_what_cannot_be_taken_in_is_one_line_and_nothing_is_written(learnt, asked, tmp_path, what, why):
    run, base = learnt
    asked("export", run, "round-1", "--out", tmp_path / "peft")
    broken(tmp_path / "peft", what)
    code, out, err = asked("import", tmp_path / "peft", "--out", tmp_path / "in", "--model", f"local/{base}")
    assert (code, out) == (2, "") and why in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["peft"]


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
