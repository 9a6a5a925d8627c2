"""OpenEnv worlds of several forms, served by the package itself; says where each is, as one line of JSON."""

import asyncio
import json
import socket
import time
from typing import Literal

import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_app
from pydantic import Field


class Seen(Observation):
    text: str = ""
    left: int = 0


class Word(Action):
    word: str = Field(description="A word")


class Way(Action):
    way: Literal["left", "right", "wait"]


class Move(Action):
    """Walk."""

    to: Literal["left", "right"]
    steps: int = Field(ge=1, le=9)
    why: str = ""


class World(Environment):
    """The word or the way is "left" for even seeds and "right" for odd ones; another costs a tenth."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._state = State()

    def reset(self, seed=None, episode_id=None, hint="", **more):
        self._state = State(episode_id=episode_id, step_count=0)
        self.goal = "right" if (seed or 0) % 2 else "left"
        if hint == "break":
            raise ValueError("the ceiling came down")
        return Seen(text=f"Go {self.goal}. Seed {seed}.{hint}", left=3)

    def step(self, action, timeout_s=None, **more):
        self._state.step_count += 1
        said = next(getattr(action, name) for name in ("word", "way", "to") if hasattr(action, name))
        if said == "explode":
            raise ValueError("the ceiling came down")
        if said == "huge":
            return Seen(text="x" * 10_000_000)
        if said == "sleep":
            time.sleep(3600)
        right = said == self.goal
        return Seen(
            text="there" if right else "not there", left=3 - self._state.step_count, done=right, reward=1.0 if right else -0.1
        )

    @property
    def state(self):
        return self._state


def tools():
    """A world of MCP tools."""
    from fastmcp import FastMCP
    from openenv.core.env_server.mcp_environment import MCPEnvironment

    class Tools(MCPEnvironment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self) -> None:
            server = FastMCP("sums")

            @server.tool
            def add(a: int, b: int = 1) -> int:
                """Add two numbers."""
                return a + b

            super().__init__(server)
            self._state = State()

        def reset(self, seed=None, episode_id=None, **more):
            self._state = State()
            return Observation(metadata={"status": "ready"})

        def _step_impl(self, action, timeout_s=None, **more):
            return Observation(done=True)

        def step(self, action, timeout_s=None, **more):
            self._state.step_count += 1
            seen = super().step(action, timeout_s=timeout_s, **more)
            return self._judged(action, seen)

        async def step_async(self, action, timeout_s=None, **more):
            seen = await super().step_async(action, timeout_s=timeout_s, **more)
            return self._judged(action, seen)

        def _judged(self, action, seen):
            if getattr(action, "arguments", {}) == {"a": 2, "b": 3}:
                seen.done, seen.reward = True, 1.0
            return seen

        @property
        def state(self):
            return self._state

    return Tools


async def main() -> None:
    from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation

    apps = {form.__name__.lower(): create_app(World, form, Seen, max_concurrent_envs=8) for form in (Word, Way, Move)}
    apps["single"] = create_app(World, Word, Seen, max_concurrent_envs=1)
    apps["tools"] = create_app(tools(), CallToolAction, CallToolObservation, max_concurrent_envs=8)
    doors = {name: socket.create_server(("127.0.0.1", 0)) for name in apps}
    servers = {name: uvicorn.Server(uvicorn.Config(app, log_level="error")) for name, app in apps.items()}
    print(json.dumps({name: f"http://127.0.0.1:{door.getsockname()[1]}" for name, door in doors.items()}), flush=True)
    await asyncio.gather(*(server.serve(sockets=[doors[name]]) for name, server in servers.items()))


if __name__ == "__main__":
    asyncio.run(main())
