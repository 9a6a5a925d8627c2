"""What BFCL's package holds of the multi-turn tasks, and its APIs called without its executor, which evaluates text."""

from __future__ import annotations

import ast
import copy
import decimal
import functools
import hashlib
import importlib
import inspect
import json
import threading
from pathlib import Path
from typing import Any

from agentevolve.environments.support.fetched import fetched
from agentevolve.models.tools import Call

APIS = {  # class -> its module, whose functions are documented under the same name
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "TwitterAPI": "posting_api",
    "VehicleControlAPI": "vehicle_control",
}
CATEGORIES = ("base", "miss_param", "long_context")
# tasks that share a scenario or a request with an earlier one, in any category
ALIKE = {25: 10, 43: 40, 70: 66, 74: 66, 83: 63, 104: 100, 133: 100, 148: 102}
# the package's tasks in the order of our seeds, those that are alike beside each other
ORDER = sorted(range(200), key=lambda number: (hashlib.sha256(b"bfcl %d" % ALIKE.get(number, number)).digest(), number))
END: dict[str, Any] = {
    "name": "end_turn",
    "description": "End your turn: the user's request is met as far as it can be, and the user goes on.",
    "parameters": {"type": "dict", "properties": {}, "required": []},
}
_TYPES = {"dict": "object", "float": "number"}  # the package's names of types in JSON schema's words
_STEEP = ("exponent", "precision", "decimal_places")
_lock = threading.Lock()  # some APIs keep things in their modules: a precision, a weather report


def load() -> Path:
    """The folder of the package. Raises AgentevolveError when it cannot be fetched."""
    sha256 = "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a"
    return fetched("bfcl-eval==2026.3.23", sha256, size=1_925_664)


class World:
    """The APIs of one scenario in the state that calls have brought them to."""

    def __init__(self, row: dict[str, Any]) -> None:
        long = "long_context" in row["id"]
        self.apis = {name: _api(name, row["initial_config"].get(name, {}), long) for name in row["involved_classes"]}

    def answer(self, call: Call) -> str:
        """The result of the agent's call, or what is wrong with it."""
        api = _owners().get(call.name)
        if api not in self.apis:
            return f"Error: there is no function {call.name[:80]!r}"
        if not isinstance(call.arguments, dict):
            return f"Error: the arguments of {call.name} are not a mapping of names to values"
        if api == "MathAPI" and (heavy := [key for key, value in call.arguments.items() if _heavy(key, value)]):
            return f"Error: {heavy[0][:80]!r} is no number that {call.name} can work with"
        if unknown := [key for name, value in call.arguments.items() for key in _unknown(call.name, name, value)]:
            return f"Error: {unknown[0][:80]!r} is no field that {call.name} knows"
        return self.call(call.name, (), call.arguments)

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The function's result as the package writes it."""
        import mpmath

        with _lock, decimal.localcontext(), mpmath.workprec(mpmath.mp.prec):
            try:
                # a default list is given as a copy: the package's own would collect what other tasks put into it
                given = copy.deepcopy(named(name, args, kwargs, defaults=True))
                result = getattr(self.apis[_owners()[name]], name)(**given)
                return result if isinstance(result, str) else _dumped(result)
            except Exception as error:  # as the package does: a function may fail in any way on what an agent passes
                return f"Error during execution: {error}"

    def same(self, other: World) -> bool:
        """Whether all public attributes are equal."""
        try:
            return all(_public(api) == _public(other.apis[name]) for name, api in self.apis.items())
        except RecursionError:  # a folder that was moved into itself
            return False


@functools.cache
def rows(category: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The package's 200 tasks of a category and their solutions."""
    name = f"BFCL_v4_multi_turn_{category}.json"
    return _lines(name), _lines(f"possible_answer/{name}")


def _lines(name: str) -> list[dict[str, Any]]:
    path = load() / "bfcl_eval/data" / name
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


@functools.cache
def _docs(api: str) -> list[dict[str, Any]]:
    return _lines(f"multi_turn_func_doc/{APIS[api]}.json")


@functools.cache
def _owners() -> dict[str, str]:
    """The API of each documented function: no two have the same name."""
    return {doc["name"]: api for api in APIS for doc in _docs(api)}


@functools.cache
def _shapes() -> dict[str, dict[str, Any]]:
    return {doc["name"]: doc["parameters"]["properties"] for api in APIS for doc in _docs(api)}


def tools(apis: list[str]) -> list[dict[str, Any]]:
    """The functions of these APIs and `end_turn` in OpenAI's schema."""
    docs = [*(doc for api in apis for doc in _docs(api)), END]
    kept = [{**doc, "parameters": _schema(doc["parameters"])} for doc in docs]
    return [{"type": "function", "function": {key: value for key, value in doc.items() if key != "response"}} for doc in kept]


def _schema(shape: dict[str, Any]) -> dict[str, Any]:
    """A documented type as JSON schema."""
    made = {**shape, "type": _TYPES.get(shape["type"], shape["type"])}
    if "items" in shape:
        made["items"] = _schema(shape["items"])
    if "properties" in shape:
        made["properties"] = {name: _schema(inner) for name, inner in shape["properties"].items()}
    return made


def _unknown(function: str, argument: str, value: Any) -> list[str]:
    """Undocumented keys of an argument that is a mapping: the package would name them in the order of a set, by chance."""
    documented = _shapes()[function].get(argument, {}).get("properties")
    return [key for key in value if key not in documented] if documented and isinstance(value, dict) else []


def _api(name: str, config: dict[str, Any], long: bool) -> Any:
    api = _class(name)()
    if name != "MathAPI":  # it has no state
        api._load_scenario(copy.deepcopy(config), long_context=long)
    return copy.deepcopy(api) if long else api  # the padding belongs to the module, and calls would change it


@functools.cache
def _class(api: str) -> type:
    return getattr(importlib.import_module(f"bfcl_eval.eval_checker.multi_turn_eval.func_source_code.{APIS[api]}"), api)


@functools.cache
def _signature(name: str) -> inspect.Signature:
    return inspect.signature(getattr(_class(_owners()[name])(), name))


def named(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], defaults: bool = False) -> dict[str, Any]:
    """A function's arguments by their names. Raises TypeError on missing and unknown ones."""
    bound = _signature(name).bind(*args, **kwargs)
    if defaults:
        bound.apply_defaults()
    return dict(bound.arguments)


def parsed(text: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """A call as the solutions write it, with literals only; raises ValueError on anything else."""
    call = ast.parse(text, mode="eval").body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(f"{text!r} is not a call")
    keywords = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    return call.func.id, tuple(ast.literal_eval(one) for one in call.args), keywords


def _heavy(name: str, value: Any) -> bool:
    """Whether MathAPI could be busy for hours with this argument."""
    if name in _STEEP:
        return not isinstance(value, int | float) or not abs(value) <= 1000
    return abs(value) > 10**30 if isinstance(value, int) else isinstance(value, str) and not name.startswith("unit_")


def _dumped(result: Any) -> str:
    if isinstance(result, dict):
        try:
            return json.dumps(result)
        except (TypeError, ValueError):
            pass
    return str(result)


def _public(api: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(api).items() if not name.startswith("_")}
