"""What going from arm to arm costs, and adapters that are loaded and silent: `python tests/bench/arms.py [model] [rounds]`.

Two random adapters of rank 16 on the model (smollm2-135m). Arms as an evaluation has them, base, one, base, other, …, each with
one short answer: with a server for every arm, as it was before bases were shared, and with one server that is asked for any.
The first turn of each is left out: there the shared one starts for adapters that are new to it. Then a prompt of 400 tokens is
read and 48 are written on servers with 0 to 4 adapters at scale 0, in turns. Times are medians, processor time of the whole
process (the engine runs in it) beside the clock.
"""

import functools
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import kin

from agentevolve.local import catalog
from agentevolve.models.engines import bases, llama_cpp
from agentevolve.models.engines.llama_cpp import Engine

LOADED = (0, 1, 2, 4)
STORY = "In the kitchen there is a table, a chair, an oven and a door to the north. " * 20


def timed(do: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    do()
    return time.perf_counter() - wall, time.process_time() - cpu


def shown(name: str, times: list[tuple[float, float]]) -> None:
    wall, cpu = (statistics.median(one) for one in zip(*times, strict=True))
    print(f"{name:44}{wall:8.2f}{cpu:8.2f}", flush=True)


def ask(engine: Engine, words: str, tokens: int) -> None:
    asked = {"prompt": words, "n_predict": tokens, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
    engine.completion(asked, patience=600.0)


def switches(model: catalog.LocalModel, adapters: list[Path], rounds: int) -> None:
    arms = [None, adapters[0], None, adapters[1]] * rounds

    def apart(adapter: Path | None) -> None:
        engine = llama_cpp.serve(catalog.serving_gguf(model), adapter=adapter, threads=1)
        ask(engine, "Once", 1)
        engine.close()

    holds = {adapter: bases.hold(model, adapter, 4, 1) for adapter in dict.fromkeys(arms)}

    def shared(adapter: Path | None) -> None:
        engine = holds[adapter].start()
        ask(engine, "Once", 1)
        engine.close()

    for name, turn in (("an arm, a server each", apart), ("an arm, one server", shared)):
        times = [timed(functools.partial(turn, adapter)) for adapter in arms]
        shown(name, times[len(arms) // rounds :])
    for hold in holds.values():
        hold.close()


def loaded(model: catalog.LocalModel, adapters: list[Path], rounds: int) -> None:
    gguf = catalog.serving_gguf(model)
    with ExitStack() as stack:
        servers = []
        for count in LOADED:
            server = llama_cpp.start(gguf, {str(path): path for path in adapters[:count]}, slots=1, threads=1)
            servers.append(stack.enter_context(closing(Engine(server, None, server.close))))
        answering = Engine(server, str(adapters[0]), lambda: None)
        names = [f"a prompt and an answer, {count} adapters loaded" for count in LOADED] + ["of 4 loaded one answers"]
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for _ in range(rounds):
            for name, engine in zip(names, [*servers, answering], strict=True):
                times[name].append(timed(functools.partial(ask, engine, STORY, 48)))
    for name in names:
        shown(name, times[name])


def main(name: str, rounds: int) -> None:
    model = catalog.resolve(name)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {name}, one thread, {rounds} rounds")
    print(f"{'seconds (medians)':44}{'clock':>8}{'CPU':>8}")
    with tempfile.TemporaryDirectory() as folder:
        gguf = catalog.serving_gguf(model)
        made = [kin.lora_of(gguf, Path(folder) / f"{seed}.gguf", seed, rank=16, size=0.02) for seed in range(max(LOADED))]
        switches(model, made, max(rounds, 2))
        loaded(model, made, rounds)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m", int(sys.argv[2]) if len(sys.argv) > 2 else 7)
