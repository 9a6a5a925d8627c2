"""A policy behind its address, for clients that are not ours: in this process, or as the command line starts it."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from worlds import Metered, new_run, use_model

from agentevolve.doors import serve
from agentevolve.doors.talks import Talks
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy
from agentevolve.records import Trajectory
from agentevolve.run.folder import Run, read_run

KEY = "the key"
KEPT = ("PATH", "HOME", "TMPDIR", "LANG")


class House:
    """A served run: where it is, and what the model was shown."""

    def __init__(self, run: Run, model: ScriptedModel, url: str) -> None:
        self.run, self.model, self.url = run, model, url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2].partition("/")[0])

    def post(self, route: str, body: object, **headers: str) -> httpx.Response:
        sent = {"Authorization": f"Bearer {KEY}"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(self.url + route, content=json.dumps(body), headers=sent, trust_env=False, timeout=60)

    def get(self, route: str) -> httpx.Response:
        return httpx.get(self.url + route, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False)

    def ask(self, *said: str, task: str = "") -> httpx.Response:
        roles = ["user", "assistant"] * len(said)
        messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
        return self.post("/chat/completions", {"model": "any", "messages": messages}, X_Agentevolve_Task=task)

    def lived(self) -> dict[str, Trajectory]:
        return read_run(self.run.folder).trajectories


@contextmanager
def served(
    tmp_path, script, policy: Policy | None = None, prepare=lambda run: None, patience: float = serve.PATIENCE
) -> Iterator[House]:
    run = new_run(tmp_path / "served", workers=2)
    prepare(run)
    policy, model = policy or Policy(model="random"), ScriptedModel(script)
    use_model(run, Metered(run, model), policy)
    door = socket.create_server(("127.0.0.1", 0))
    port = door.getsockname()[1]
    app = serve.application(Talks(policy, run, "worlds:Corridor"), KEY, [f"127.0.0.1:{port}"], patience)
    server = serve.server(app, patience)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
    thread.start()
    while not server.started:
        thread.join(0.02)
    try:
        yield House(run, model, f"http://127.0.0.1:{port}/v1")
    finally:
        server.should_exit = True
        thread.join()
        door.close()
        run.close()


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[str]:
    """`agentevolve serve` with the smallest real model in one thread; its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-c",
        "from agentevolve.cli.main import main; main()",
        "serve",
        "--model",
        "local/smollm2-135m",
        "--threads",
        "1",
    ]
    command += ["--workers", "2", "--port", str(port), "--out", str(folder), *words]
    process = subprocess.Popen(command, env=os.environ | {"AGENTEVOLVE_SERVE_KEY": KEY}, stderr=subprocess.PIPE, text=True)
    try:
        said = process.stderr.readline()
        address = re.search(r"http://[\d.:]+/v1", said)
        assert address, said + process.stderr.read()
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                threading.Event().wait(0.05)
        yield address[0]
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()


def settings(**more: str) -> dict[str, str]:
    """The variables of a client's process: no key and no address of the user's but those of certificates and of uv's index."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith(("SSL_CERT", "UV_"))}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return kept | offline | {"OMP_NUM_THREADS": "1"} | more
