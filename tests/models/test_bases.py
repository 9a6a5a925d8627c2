"""One base in memory for all who act with it: which weights answer, when a server starts, and when the memory is given back."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import kin
import pytest
import torch

from agentevolve.local import catalog
from agentevolve.local.families import FAMILIES
from agentevolve.models.engines import bases
from agentevolve.models.engines.llama_cpp import Engine, serve
from agentevolve.models.lite import open_model
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Message
from agentevolve.run.folder import Run

PROMPT = list(b"Where is the path, and where does it lead?")
ASK = [Message(role="user", content="In the kitchen there is a table, an oven and a door to the north. What now?")]
ARMS = (None, "one", "two")


def tiny(place, family="llama"):
    """A tiny model's GGUF, as it is served, and two adapters of it by name."""
    torch.set_num_threads(1)
    made = kin.gguf_of(kin.folder(place / "base", family), place / "base.gguf", family)
    with pytest.MonkeyPatch.context() as environment:  # the copy that is served is none for the user's cache
        environment.setenv("AGENTEVOLVE_CACHE", str(place / "cache"))
        gguf = catalog.serving_gguf(catalog.resolve(str(made)))
    return gguf, {name: kin.lora_of(gguf, place / f"{name}.gguf", seed) for seed, name in enumerate(ARMS[1:])}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def real(smollm2, tmp_path_factory):
    """Two adapters of smollm2-135m, loud enough to be heard in every answer."""
    place = tmp_path_factory.mktemp("real")
    return {name: kin.lora_of(smollm2, place / f"{name}.gguf", seed, size=0.06) for seed, name in enumerate(ARMS[1:])}


@pytest.fixture
def hold():
    """Makes claims to the GGUF at a path, which are given up in the end."""
    made = []

    def held(gguf, adapter=None, slots=2) -> bases.Hold:
        made.append(bases.hold(catalog.resolve(str(gguf)), adapter, slots, 1))
        return made[-1]

    yield held
    for one in made:
        one.close()


def chances(engine: Engine) -> dict[int, float]:
    return engine.chances(PROMPT, [], 1.0)


def alike(one: dict[int, float], other: dict[int, float]) -> bool:
    """Whether both tell the same log-probabilities, but for rounding, by which a tie for the last place may be decided, too."""
    both = one.keys() & other.keys()
    return len(both) >= 0.95 * len(one) and all(abs(one[token] - other[token]) < 1e-3 for token in both)


def greedy(engine: Engine, **more) -> list[int]:
    """The tokens of an answer."""
    asked = {"prompt": ASK[0].content, "n_predict": 12, "temperature": 0.0, "return_tokens": True, "ignore_eos": True} | more
    return engine.completion(asked)["tokens"]


def serves(engine: Engine) -> bool:
    try:
        return httpx.get(engine.url.replace("/v1", "/health"), trust_env=False).status_code == 200
    except httpx.ConnectError:
        return False


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_one_server_answers_for_each_adapter_as_a_server_with_it_alone(family, tmp_path, hold):
    gguf, adapters = tiny(tmp_path, family)
    alone = {}
    for arm in ARMS:
        engine = serve(gguf, adapter=adapters.get(arm), slots=1, threads=1, context=512)
        alone[arm] = chances(engine)
        engine.close()
    assert not any(alike(alone[one], alone[other]) for one in ARMS for other in ARMS if one != other)
    engines = {arm: hold(gguf, adapters.get(arm), slots=1) for arm in ARMS}
    engines = {arm: engines[arm].start() for arm in ARMS}
    assert len({engine.url for engine in engines.values()}) == 1
    for arm in (*ARMS, *reversed(ARMS)):
        assert alike(chances(engines[arm]), alone[arm]), arm
        assert alike(engines[arm].chances(PROMPT, [], 0.0), alone[None]), arm
    for engine in engines.values():
        engine.close()


def test_one_server_answers_token_for_token_as_each_alone_one_after_the_other_and_at_once(smollm2, real, hold):
    alone = {}
    for arm in ARMS:
        engine = serve(smollm2, adapter=real.get(arm), slots=2, threads=1)
        alone[arm] = greedy(engine)
        engine.close()
    assert len({tuple(said) for said in alone.values()}) == 3
    claims = {arm: hold(smollm2, real.get(arm)) for arm in ARMS}
    engines = {arm: claims[arm].start() for arm in ARMS}
    assert len({engine.url for engine in engines.values()}) == 1
    for arm in (None, "one", None, "one", "two", None):  # in one slot, whose cache holds what others have read
        assert greedy(engines[arm], id_slot=0) == alone[arm], arm
    with ThreadPoolExecutor(2) as pool:  # no two of one adapter at once: they would share a batch, which is rounded otherwise
        for both in ((None, "one"), ("one", "two"), ("two", None)):
            asked = [pool.submit(greedy, engines[arm], id_slot=slot) for slot, arm in enumerate(both)]
            assert [one.result() for one in asked] == [alone[arm] for arm in both], both
    for engine in engines.values():
        engine.close()


def test_two_policies_in_one_process_act_at_once_each_with_its_own_weights(smollm2, real):
    def said(model) -> list[str]:
        return [model.complete(ASK, max_tokens=8, seed=seed).text for seed in range(2)]

    alone, asked = {}, {arm: {"adapter": real.get(arm), "slots": 2, "threads": 1} for arm in ARMS}
    for arm in ARMS:
        model = open_model("local/smollm2-135m", **asked[arm])
        alone[arm] = said(model)
        model.close()
    models = {arm: open_model("local/smollm2-135m", **asked[arm]) for arm in ARMS}
    with ThreadPoolExecutor(3) as pool:
        assert dict(zip(ARMS, pool.map(lambda arm: said(models[arm]), ARMS), strict=True)) == alone
    assert len({model._ready().url for model in models.values()}) == 1
    for model in models.values():
        model.close()


def test_going_back_and_forth_between_arms_starts_a_server_for_a_new_adapter_alone(small, tmp_path):
    gguf, adapters = small
    run, urls = Run(tmp_path / "run"), []

    def act(arm):
        def make():
            return open_model(f"local/{gguf}", adapter=adapters.get(arm), slots=2, threads=1)

        model = run.part("model", str(arm), make)
        model.complete(ASK, choices=["north", "south"])
        urls.append(model._ready().url)
        return model._ready()

    for arm in (None, "one", None, "one", "two", "one", None, "two"):
        act(arm)
    base, one, two = urls[0], urls[1], urls[4]
    assert len({base, one, two}) == 3
    assert urls == [base, one, one, one, two, two, two, two]
    last = act("one")
    run.rest("model")
    assert not serves(last)
    again = act(None)  # after a training the adapters used last are there, too
    assert act("two").url == act("one").url == again.url != two
    run.close()
    assert not serves(again)


def test_a_base_stays_while_anybody_holds_it_and_a_server_while_anybody_acts_with_it(small, tmp_path, hold):
    gguf, new = small[0], kin.lora_of(small[0], tmp_path / "new.gguf", 7)
    claim, other = hold(gguf), hold(gguf)
    engine = claim.start()
    claim.close()
    claim.close()
    assert serves(engine)  # it is in use
    engine.close()
    engine.close()
    assert serves(engine)  # another holds the base
    again = other.start()
    assert again.url == engine.url
    late = hold(gguf, new).start()  # the server in use lacks it, and is not stopped for it
    assert late.url != again.url and serves(again)
    assert not alike(chances(late), chances(again))
    late.close()
    assert not serves(late) and serves(again)  # no more than one is kept of what is not in use
    again.close()
    other.close()
    assert serves(again)
    hold(gguf, new).close()
    assert serves(again)  # the claim of who came late is still open


def test_an_adapter_whose_file_has_changed_is_another(small, tmp_path, hold):
    gguf, adapters = small
    path = tmp_path / "adapter.gguf"
    told = []
    for arm in ("one", "two", "one"):
        path.write_bytes(adapters[arm].read_bytes())
        engine = hold(gguf, path).start()
        told.append(chances(engine))
        engine.close()
    assert alike(told[0], told[2]) and not alike(told[0], told[1])


def test_one_that_does_not_fit_is_refused_by_name_and_the_others_are_not_held_up_by_it(small, tmp_path, hold):
    gguf, adapters = small
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + bytes(200))
    for _ in range(2):
        claim = hold(gguf, damaged)  # its claim stays open
        with pytest.raises(AgentevolveError, match=r"damaged\.gguf: no LoRA for this architecture and size, or a damaged file"):
            claim.start()
        engine = hold(gguf, adapters["one"]).start()
        assert len(chances(engine)) > 50
        engine.close()


def test_an_adapter_that_is_gone_is_left_out(small, tmp_path, hold):
    gguf, adapters = small
    gone = tmp_path / "gone.gguf"
    gone.write_bytes(adapters["two"].read_bytes())
    first = hold(gguf, gone)
    first.start().close()
    first.close()
    gone.unlink()
    engine = hold(gguf, adapters["one"]).start()
    assert len(chances(engine)) > 50
    engine.close()
    with pytest.raises(AgentevolveError, match=r"gone\.gguf: no such file"):
        hold(gguf, gone).start()


def test_a_server_is_started_with_no_more_than_a_few(small, tmp_path, hold):
    gguf, _ = small
    paths = [kin.lora_of(gguf, tmp_path / f"{seed}.gguf", seed) for seed in range(bases.KEPT + 2)]
    for path in paths:
        claim = hold(gguf, path)
        claim.start().close()
        claim.close()
    engine = hold(gguf, paths[0]).start()
    assert len(engine.scales) == bases.KEPT
    assert [one["scale"] for one in engine.scales] == [1.0] + [0.0] * (bases.KEPT - 1)
    engine.close()


def test_closing_waits_for_a_request_in_flight(small, hold):
    gguf, _ = small
    claim = hold(gguf, slots=1)
    engine, answers = claim.start(), []
    asked = {"prompt": "Once", "n_predict": 400, "ignore_eos": True}
    client = threading.Thread(target=lambda: answers.append(engine.completion(asked)))
    client.start()
    headers = {"Authorization": f"Bearer {engine.key}"}
    while client.is_alive():
        if "requests_processing 1" in httpx.get(engine.url.replace("/v1", "/metrics"), headers=headers).text:
            break
    engine.close()
    claim.close()
    client.join()
    assert answers[0]["tokens_predicted"] == 400 and not serves(engine)


def test_a_process_ends_well_that_has_left_its_model_open_and_a_request_in_flight(small):
    program = """
import sys, threading, time
from agentevolve.models.lite import open_model
from agentevolve.records import Message
model = open_model(f"local/{sys.argv[1]}", slots=1, threads=1)
ask = [Message(role="user", content="Tell me all.")]
model.complete(ask, choices=["yes", "no"])
threading.Thread(target=lambda: model.complete(ask, max_tokens=3000), daemon=True).start()
time.sleep(0.3)
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program, str(small[0])], env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
