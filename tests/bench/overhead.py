"""What a step costs over the bare call of its model, beside others; and how near to ideal many workers come.

    python tests/bench/overhead.py                                     # processor time of a step, ours and LiteLLM's own
    python tests/bench/overhead.py --peer dspy=PYTHON --peer inspect=PYTHON
    python tests/bench/overhead.py --wall                              # 256 attempts of 5 turns, a second a call, 64 workers
    python tests/bench/overhead.py --wall --on ray

A server on loopback answers at once (`--wall`: after a second) with one of two actions. An episode is a conversation of 20
turns that grows by an observation and an answer each: for everybody the same text. Every contestant runs in a process of its
own; its processor time is taken around the episodes, after ten calls to warm up; medians over alternating rounds. PYTHON is
an interpreter that has the peer; what a peer does per call by its own habits (caching off, logs to a temporary folder) is
left as it is.

Contestants: httpx (a bare POST), litellm hosted_vllm/ and openai/ (litellm.completion), agentevolve through both (a whole
rollout: world, prompt, choices, journal with fsync), local (agentevolve by the route of its embedded engine), dspy
(dspy.Predict), inspect (a solver that calls generate), verifiers (a MultiTurnEnv of 0.1), ldp (a SimpleAgent without tools in an
aviary environment). LiteLLM is called through `hosted_vllm/` by dspy and ldp, the openai client by inspect and verifiers.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TURNS, SHORT = 20, 5  # of a conversation; of one with `--wall`
SEEN = "You stand in a corridor; the lamp is to the right, a few steps away. Exits: left, right. "
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "wait"}}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101},
}


# --- the server, in a process of its own ---


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, latency: float) -> None:
    body = json.dumps(ANSWER).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    try:
        while True:
            said = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(b": ", 1) for line in said.lower().split(b"\r\n")[1:] if b": " in line)
            await reader.readexactly(int(fields.get(b"content-length", b"0")))
            await asyncio.sleep(latency)
            writer.write(head + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _serve(latency: float) -> None:
    server = await asyncio.start_server(lambda r, w: _answer(r, w, latency), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def served(latency: float) -> Iterator[str]:
    process = subprocess.Popen([sys.executable, __file__, "--serve", str(latency)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


# --- the contestants: each gives what plays one episode ---


def chats(turns: int = TURNS) -> Iterator[list[dict[str, str]]]:
    """The conversation before each of the turns."""
    said = [{"role": "system", "content": "Walk to the lamp. Answer with one of: left, right, wait."}]
    for turn in range(turns):
        said.append({"role": "user", "content": f"{SEEN}Turn {turn}."})
        yield said
        said.append({"role": "assistant", "content": "wait"})


def by_httpx(url: str) -> Callable[[], None]:
    import httpx

    client = httpx.Client(trust_env=False)

    def episode() -> None:
        for said in chats():
            client.post(f"{url}/chat/completions", json={"model": "m", "messages": said}).raise_for_status().json()

    return episode


def by_litellm(route: str) -> Callable[[str], Callable[[], None]]:
    def made(url: str) -> Callable[[], None]:
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it reaches for the network
        import litellm

        def episode() -> None:
            for said in chats():
                litellm.completion(model=f"{route}/m", api_base=url, api_key="none", messages=list(said))

        return episode

    return made


class Corridor:
    """The world of the conversation above."""

    def reset(self, task: Any) -> tuple[str, dict[str, Any]]:
        self.turn = 0
        return f"{SEEN}Turn 0.", {"actions": ["left", "right", "wait"], "notes": "Walk to the lamp."}

    def step(self, action: str) -> Any:
        from agentevolve.protocols import Step

        self.turn += 1
        return Step(f"{SEEN}Turn {self.turn}.", 0.0, False, self.turn == _turns(), {"actions": ["left", "right", "wait"]})

    def oracle(self, task: Any) -> list[str]:
        return ["wait"]

    def close(self) -> None:
        pass


def _turns() -> int:
    return int(os.environ.get("OVERHEAD_TURNS", TURNS))


def by_us(route: str) -> Callable[[str], Callable[[], None]]:
    def made(url: str) -> Callable[[], None]:
        numbers = iter(range(10_000))
        run, policy, task = ours(route, url, 1)

        def episode() -> None:
            from agentevolve.act.rollout import rollout

            rollout(policy, [task(0)], run, phase=f"p{next(numbers)}")

        return episode

    return made


def ours(route: str, url: str, workers: int, on: str = "threads") -> tuple[Any, Any, Callable[[int], Any]]:
    """A run, a policy that asks the server, and what makes tasks."""
    from agentevolve.policy import Policy, Workers
    from agentevolve.records import Task
    from agentevolve.run.folder import Run

    os.environ.setdefault("OPENAI_API_KEY", "none")
    run = Run(Path(tempfile.mkdtemp()) / "run", workers=Workers(count=workers, on=on), quiet=True)  # type: ignore[arg-type]
    policy = Policy(model=f"{route}/m", api_base=url)
    return run, policy, lambda n: Task(id=f"corridor/{n}", env="overhead:Corridor", split="val", seed=n)


def by_dspy(url: str) -> Callable[[], None]:
    import dspy

    dspy.configure(lm=dspy.LM("hosted_vllm/m", api_base=url, api_key="none", cache=False))
    predict = dspy.Predict("conversation -> action", adapter=None)

    def episode() -> None:
        for said in chats():
            try:
                predict(conversation="\n".join(one["content"] for one in said))
            except Exception as error:  # the answer is no field of its form; the call was made all the same
                if "Adapter" not in type(error).__name__:
                    raise

    return episode


def by_inspect(url: str) -> Callable[[], None]:
    os.environ["OPENAI_API_KEY"] = "none"
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ChatMessageUser, get_model
    from inspect_ai.solver import solver

    @solver
    def player() -> Any:
        async def play(state: Any, generate: Any) -> Any:
            for turn in range(TURNS):
                if turn:
                    state.messages.append(ChatMessageUser(content=f"{SEEN}Turn {turn}."))
                state = await generate(state)
            return state

        return play

    model = get_model("openai/m", base_url=url)
    task = Task(dataset=[Sample(input=f"{SEEN}Turn 0.")], solver=player())

    def episode() -> None:
        eval(task, model=model, log_dir=tempfile.mkdtemp(), display="none", log_level="error")

    return episode


def by_verifiers(url: str) -> Callable[[], None]:
    import verifiers as vf
    from datasets import Dataset
    from openai import AsyncOpenAI
    from verifiers.clients import OpenAIChatCompletionsClient

    class Play(vf.MultiTurnEnv):  # type: ignore[misc,name-defined]
        async def env_response(self, messages: Any, state: Any, **_: Any) -> Any:
            return [vf.UserMessage(content=f"{SEEN}Turn.")]

    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": f"{SEEN}Turn 0."}], "answer": ""}])
    env = Play(dataset=rows, eval_dataset=rows, rubric=vf.Rubric(funcs=[lambda **_: 0.0], weights=[1.0]), max_turns=TURNS)
    client = OpenAIChatCompletionsClient(AsyncOpenAI(base_url=url, api_key="none"))

    runner = asyncio.Runner()  # one loop: the client's connections belong to it, and fail in any other

    def episode() -> None:
        found = runner.run(env.evaluate(client, "m", num_examples=1, rollouts_per_example=1))
        [made] = found["outputs"]
        assert len(made["completion"]) == 2 * TURNS - 1 and not made.get("error"), made

    return episode


def by_ldp(url: str) -> Callable[[], None]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    from aviary.core import Environment, Message
    from ldp.agent import SimpleAgent
    from ldp.alg import RolloutManager
    from lmi.config import LLMConfig, ModelSpec

    class Walk(Environment):  # type: ignore[misc]
        async def reset(self) -> Any:
            self.turn = 0
            return [Message(content=f"{SEEN}Turn 0.")], []

        async def step(self, action: Any) -> Any:
            self.turn += 1
            return [Message(content=f"{SEEN}Turn {self.turn}.")], 0.0, self.turn == TURNS, False

    config = LLMConfig(models=[ModelSpec.from_name("hosted_vllm/m", api_base=url, api_key="none")])
    runner = asyncio.Runner()
    agent = SimpleAgent(llm_config=config, sys_prompt="Walk to the lamp. Answer with one of: left, right, wait.")

    def episode() -> None:
        rollouts = RolloutManager(agent, catch_agent_failures=False, catch_env_failures=False)
        [found] = runner.run(rollouts.sample_trajectories(environments=[Walk()]))
        assert len(found.steps) == TURNS

    return episode


CONTESTANTS: dict[str, Callable[[str], Callable[[], None]]] = {
    "httpx": by_httpx,
    "litellm hosted_vllm/": by_litellm("hosted_vllm"),
    "agentevolve hosted_vllm/": by_us("hosted_vllm"),
    "litellm openai/": by_litellm("openai"),
    "agentevolve openai/": by_us("openai"),
    "dspy": by_dspy,
    "inspect": by_inspect,
    "verifiers": by_verifiers,
    "ldp": by_ldp,
}


def one(name: str, url: str, episodes: int) -> None:
    """Play for one contestant: ms of processor time a step."""
    sys.path.insert(0, str(Path(__file__).parent))
    play = CONTESTANTS[name](url)
    play()
    began = time.process_time()
    for _ in range(episodes):
        play()
    print(1000 * (time.process_time() - began) / episodes / TURNS)


def steps(args: argparse.Namespace) -> None:
    peers = dict(peer.split("=", 1) for peer in args.peer)
    names = [name for name in CONTESTANTS if name in peers or name.startswith(("httpx", "litellm", "agentevolve"))]
    found: dict[str, list[float]] = {name: [] for name in names}
    with served(0.0) as url:
        for _ in range(args.rounds):
            for name in names:
                words = [peers.get(name, sys.executable), __file__, "--one", name, "--url", url, "--episodes", str(args.episodes)]
                done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
                found[name].append(float(done.stdout.split()[-1]))
    print("| a step of | ms of processor time, median | min | max |\n| --- | --- | --- | --- |")
    for name, times in sorted(found.items(), key=lambda item: statistics.median(item[1])):
        print(f"| {name} | {statistics.median(times):.2f} | {min(times):.2f} | {max(times):.2f} |")
    for route in ("hosted_vllm/", "openai/"):
        over = statistics.median(found[f"agentevolve {route}"]) - statistics.median(found[f"litellm {route}"])
        print(f"\nagentevolve over litellm, {route}: {over:+.2f} ms a step")


def walls(args: argparse.Namespace) -> None:
    """256 attempts of 5 turns, a second a call: LiteLLM alone on as many threads, and ours."""
    os.environ["OVERHEAD_TURNS"] = str(SHORT)
    here = str(Path(__file__).parent)
    sys.path.insert(0, here)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    ideal = args.attempts * SHORT * 1.0 / args.workers
    print("| of | on | workers | wall, s | ideal, s | share | processor, s |\n| --- | --- | --- | --- | --- | --- | --- |")
    with served(1.0) as url:
        for route in ("hosted_vllm", "openai"):
            made = {f"agentevolve {route}/": our_attempts(route, url, args.workers, args.on)}
            if args.on == "threads":
                made = {f"litellm {route}/ alone": bare_calls(route, url, args.workers)} | made
            for name, opened in made.items():
                with opened as play:
                    play(args.workers)
                    began, busy = time.monotonic(), time.process_time()
                    play(args.attempts)
                    wall, busy = time.monotonic() - began, time.process_time() - busy
                share = f"{wall:.1f} | {ideal:.1f} | {ideal / wall:.3f}"
                print(f"| {name} | {args.on} | {args.workers} | {share} | {busy:.1f} |", flush=True)


@contextmanager
def our_attempts(route: str, url: str, workers: int, on: str) -> Iterator[Callable[[int], object]]:
    """What makes so many attempts."""
    from agentevolve.act.rollout import rollout

    run, policy, task = ours(route, url, workers, on)
    phases = (f"p{number}" for number in itertools.count())
    yield lambda attempts: rollout(policy, [task(n) for n in range(attempts)], run, phase=next(phases))
    run.close()


@contextmanager
def bare_calls(route: str, url: str, workers: int) -> Iterator[Callable[[int], object]]:
    """What holds so many conversations by LiteLLM alone, on threads; its connections are kept open as ours are."""
    from agentevolve.models.backend import litellm

    lite = litellm()  # imported before any thread needs it: its parts import each other

    def converse(_: int) -> None:
        for said in chats(SHORT):
            lite.completion(model=f"{route}/m", api_base=url, api_key="none", messages=list(said))

    with ThreadPoolExecutor(workers) as pool:
        yield lambda conversations: list(pool.map(converse, range(conversations)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--on", default="threads", choices=["threads", "ray"])
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--attempts", type=int, default=256)
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--one", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        asyncio.run(_serve(args.serve))
    elif args.one:
        one(args.one, args.url, args.episodes)
    else:
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}\n"
        )
        walls(args) if args.wall else steps(args)


if __name__ == "__main__":
    main()
