"""What a rollout makes of the local engine: `python tests/bench/engine.py [tasks] [model]`.

Four workers play `tasks` tasks with the untrained local model (smollm2-135m). Then the very same conversations are sent to the
same kind of engine directly, four at a time, over plain HTTP, each held to the action that was taken. Both are given as tokens
prefilled (not from the prompt cache) and decoded per second; their ratio is the share of the engine that the rollout uses. Memory
is the highest resident size of the process after both, the engine's four slots included.
"""

import os
import platform
import resource
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import httpx

from agentevolve.act.prompting import conversation
from agentevolve.act.rollout import rollout
from agentevolve.load import load_task_set, tasks_of
from agentevolve.local import catalog
from agentevolve.models.engines.llama_cpp import Engine, grammar, serve
from agentevolve.policy import Policy
from agentevolve.records import Trajectory, Usage
from agentevolve.run.folder import Run

WORKERS = 4


def played(n: int, name: str) -> tuple[list[Trajectory], float]:
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run", workers=WORKERS, quiet=True)
        tasks = tasks_of(load_task_set("mapreader-easy"), "train", limit=n + WORKERS)
        policy = Policy(model=f"local/{name}")
        rollout(policy, tasks[:WORKERS], run, phase="warm-up")
        began = time.perf_counter()
        attempts = rollout(policy, tasks[WORKERS:], run, phase="measured")
        seconds = time.perf_counter() - began
        run.close()
    return attempts, seconds


def fed(attempts: list[Trajectory], name: str) -> tuple[int, float]:
    engine = serve(catalog.serving_gguf(catalog.resolve(name)), slots=WORKERS)
    slots: SimpleQueue[int] = SimpleQueue()
    for slot in range(WORKERS):
        slots.put(slot)
    client = httpx.Client(timeout=300, headers={"Authorization": f"Bearer {engine.key}"})
    with client, ThreadPoolExecutor(WORKERS) as pool:
        client.get(engine.url + "/models")
        began = time.perf_counter()
        tokens = sum(pool.map(lambda attempt: replay(client, engine, slots, attempt), attempts))
        seconds = time.perf_counter() - began
    engine.close()
    return tokens, seconds


def replay(client: httpx.Client, engine: Engine, slots: "SimpleQueue[int]", attempt: Trajectory) -> int:
    """Ask for every action of the attempt again; how many tokens that took."""
    before, said = conversation(attempt, keep_context=True)
    slot, tokens = slots.get(), 0
    for turn in range(0, len(said), 2):
        messages = [message.model_dump() for message in before + said[:turn]]
        asked = {
            "messages": messages,
            "max_tokens": 64,
            "temperature": 0.7,
            "id_slot": slot,
            "grammar": grammar([said[turn].content]),
        }
        timings = client.post(f"{engine.url}/chat/completions", json=asked).json()["timings"]
        tokens += timings["prompt_n"] + timings["predicted_n"]
    slots.put(slot)
    return tokens


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 24
    name = sys.argv[2] if len(sys.argv) > 2 else "smollm2-135m"
    attempts, seconds = played(n, name)
    usage = sum((attempt.usage for attempt in attempts), Usage())
    tokens = usage.prompt_tokens - usage.cached_tokens + usage.completion_tokens
    direct_tokens, direct_seconds = fed(attempts, name)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores; {name}, {n} tasks of mapreader-easy, {WORKERS} workers")
    print(f"rollout  {tokens:6} tokens in {seconds:5.1f} s: {tokens / seconds:4.0f} tokens/s")
    print(f"direct   {direct_tokens:6} tokens in {direct_seconds:5.1f} s: {direct_tokens / direct_seconds:4.0f} tokens/s")
    share = tokens / seconds / (direct_tokens / direct_seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"the rollout reaches {share:.2f} of the engine; the process took {peak:.1f} GB")


if __name__ == "__main__":
    main()
