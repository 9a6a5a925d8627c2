"""What a user gave: read safely, checked, and named in a complaint. A message echoes at most `SHOWN` characters of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from agentevolve.protocols import AgentevolveError

SHOWN = 200  # characters of what was given
AGAIN = 60  # of a part of it that a message has said already
LARGEST = 1 << 20  # bytes of a YAML file
MOST = 20_000  # values in it, each alias counted as what it stands for
DEEPEST = 30  # values inside each other
Kind = TypeVar("Kind", bound=BaseModel)


def shown(value: object, most: int = SHOWN) -> str:
    """The value as Python writes it, on one short line without control characters."""
    try:
        return cut(repr(value), most)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return f"a {type(value).__name__}"


def cut(text: object, most: int = SHOWN) -> str:
    """The start of the text on one line, what cannot be printed escaped."""
    line = str(text)[: most + 1]
    line = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in line)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def read_yaml(path: Path, kind: type[Kind]) -> dict[str, Any]:
    """The mapping in the YAML file, not yet checked to be one of `kind`.

    Raises AgentevolveError, one line, for every way in which it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise AgentevolveError(f"{path}: larger than {LARGEST:,} bytes")
        found = parsed(data.decode("utf-8"))
    except OSError as error:
        raise AgentevolveError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise AgentevolveError(f"{path}: not UTF-8 (byte {error.start})") from None
    except ValueError as error:
        raise AgentevolveError(f"{path}: {error}") from None
    if not isinstance(found, dict):
        what = "empty" if found is None else f"a {type(found).__name__}"
        raise AgentevolveError(f"{path}: this is {what}, not a mapping; known keys: {', '.join(kind.model_fields)}")
    return found


def parsed(text: str) -> Any:
    """The value that the YAML text says. Raises ValueError, one line, when it is none, or too large or too deep."""
    try:
        return yaml.load(text, _Reader)  # a SafeLoader
    except _Refused as error:
        raise ValueError(str(error)) from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise ValueError(f"not YAML: {cut(getattr(error, 'problem', None) or error, AGAIN)}{where}") from None


def checked(kind: type[Kind], values: Mapping[str, Any], where: object) -> Kind:
    """The values as one of `kind`. Raises AgentevolveError, one line that names `where`, the field and the known ones."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise AgentevolveError(f"{where}: {complaint(error, kind)}") from None


def complaint(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first thing that is wrong with values that should have been of `kind`."""
    first = error.errors(include_url=False)[0]
    where = cut(".".join(map(str, first["loc"])))
    if first["type"] == "extra_forbidden":
        return f"unknown key {where}; known: {', '.join(_known(first['loc'][:-1], kind))}"
    if first["type"] == "value_error":
        return ": ".join(part for part in (where, cut(first["msg"].removeprefix("Value error, "))) if part)
    return f"{where} is missing" if first["type"] == "missing" else f"{where}: {cut(first['msg'])}, not {shown(first['input'])}"


def _known(groups: tuple[int | str, ...], kind: type[BaseModel]) -> list[str]:
    for group in groups:
        if field := kind.model_fields.get(str(group)):
            kind = next(_models(field.annotation), kind)
    return list(kind.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that the annotation speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


class _Refused(yaml.YAMLError):
    """It is YAML, but not what we take."""


class _Reader(yaml.composer.Composer, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml's, if there
    """As SafeLoader, within bounds that hold for what aliases stand for too; a key that is there twice is refused.

    "1:30" is text: YAML 1.1 reads it as 90.
    """

    def __init__(self, text: str) -> None:
        super(yaml.composer.Composer, self).__init__(text)
        yaml.composer.Composer.__init__(self)
        self._sizes: dict[int, int] = {}
        self._size = self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node, counted."""
        alias, before, line = self.check_event(yaml.AliasEvent), self._size, self.peek_event().start_mark.line + 1
        self._depth += 1
        if self._depth > DEEPEST:
            raise _Refused(f"line {line}: nested deeper than {DEEPEST}")
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        # what an alias stands for is not complete yet when it is inside of it: endless
        self._size += self._sizes.get(id(node), MOST) if alias else 1
        if self._size > MOST:
            raise _Refused(f"line {line}: more than {MOST:,} values, counting what aliases stand for")
        if not alias:
            self._sizes[id(node)] = self._size - before
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """A mapping, each key of which is there once."""
        node: Any = super().compose_mapping_node(anchor)
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
                name = repr(self.construct_object(key))
                if name in keys:
                    raise _Refused(f"line {key.start_mark.line + 1}: the key {cut(name)} is there twice")
                keys.add(name)
        return node

    def construct_number(self, node: Any) -> Any:
        """A number, or the text if it is one in base 60."""
        if ":" in (text := str(self.construct_scalar(node))):
            return text
        if node.tag.endswith(":float"):
            return self.construct_yaml_float(node)
        if abs(number := self.construct_yaml_int(node)) >> 63:
            raise _Refused(f"line {node.start_mark.line + 1}: a number of more than 64 bits: {cut(text, AGAIN)}")
        return number


for _kind in ("int", "float"):
    _Reader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Reader.construct_number)
