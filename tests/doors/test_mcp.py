"""The MCP server by the SDK's real client: in memory, over stdio, and over HTTP on loopback."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from worlds import learner, make_tasks, new_run, use_model

from agentevolve.act.rollout import rollout
from agentevolve.doors.mcp import server
from agentevolve.memory import open_memory
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy, Recall
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry
from agentevolve.refine import demos
from agentevolve.update import remember

COMMAND = ["-c", "from agentevolve.cli.main import main; main()", "memory", "serve"]


@pytest.fixture
def place(tmp_path) -> Path:
    """A run with two demos, and an attempt that was shown one of them."""
    run = new_run(tmp_path / "r", workers=1)
    won = rollout(Policy(model="oracle"), make_tasks(2, length=2), run, phase="1/acquire")
    policy = remember(Policy(model="random", recall=Recall(nearest={"demo": 1})), demos(won, 1), run)
    use_model(run, ScriptedModel(learner), policy)
    rollout(policy, make_tasks(1, split="val"), run, phase="1/val/memory", measuring=True)
    run.close()
    return tmp_path / "r"


def value(result: Any) -> Any:
    """What a tool told, as JSON."""
    assert not result.is_error, result.content
    told = result.structured_content
    return told["result"] if set(told) == {"result"} else told


async def used(client: Client) -> None:
    """A client lists, searches and reads."""
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {"search_memory", "show_entry", "why"}
    assert all(tool.annotations.read_only_hint for tool in tools.values())
    found = value(await client.call_tool("search_memory", {"query": "Corridor one", "k": 1}))
    assert len(found) == 1 and "Corridor one" in found[0]["text"]
    entry = value(await client.call_tool("show_entry", {"id": found[0]["id"]}))
    assert entry["sources"] == ["1/acquire/corridor/train/0/0"] and entry["text"] == found[0]["text"]
    told = value(await client.call_tool("why", {"attempt": "1/val/memory/corridor/val/100/0"}))
    assert [one["looked"]["shown"] for one in told] == [True, False]
    for name, asked in (("show_entry", {"id": "x"}), ("why", {"attempt": "x"}), ("search_memory", {})):
        with contextlib.suppress(MCPError):
            assert (await client.call_tool(name, asked)).is_error


def test_in_memory(place):
    async def talk():
        async with Client(server(place)) as client:
            await used(client)
            with open_memory(place / "memory") as memory:  # whoever writes is not in the way, and is heard
                memory.add([Entry(id="new", kind="insight", key="zebra", text="zebra", env="e")])
            found = value(await client.call_tool("search_memory", {"query": "zebra", "kind": "insight"}))
            assert [one["id"] for one in found] == ["new"]

    asyncio.run(talk())


def settings() -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}


def test_over_stdio(place):
    async def talk():
        parameters = StdioServerParameters(command=sys.executable, args=[*COMMAND, str(place)], env=settings())
        async with Client(stdio_client(parameters)) as client:
            await used(client)

    asyncio.run(talk())


def test_over_http_on_loopback(place):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, *COMMAND, str(place), "--http", str(port)], env=settings(), stderr=subprocess.PIPE
    )

    async def talk():
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, process.stderr.read()
            await asyncio.sleep(0.1)
        async with Client(f"http://127.0.0.1:{port}/mcp") as client:
            await used(client)

    try:
        asyncio.run(talk())
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_what_has_no_memory_is_refused_in_one_line(tmp_path):
    with pytest.raises(AgentevolveError, match="neither a memory folder nor a run with one"):
        server(tmp_path)
    done = subprocess.run([sys.executable, *COMMAND, str(tmp_path)], env=settings(), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stdout == ""


def test_what_it_returns_is_json_however_odd_the_text(place):
    with open_memory(place / "memory") as memory:
        memory.add([Entry(id="odd", kind="insight", key="odd", text='</tool> "quoted" \u202e \x00 é', env="e")])

    async def talk():
        async with Client(server(place)) as client:
            entry = value(await client.call_tool("show_entry", {"id": "odd"}))
            assert entry["text"] == '</tool> "quoted" \u202e \x00 é' and json.dumps(entry)

    asyncio.run(talk())
