"""The parsed graph (torch's ``_export/serde/schema.py``), and the few changes that we make to it as data.

No torch is needed, and none is trusted: a graph is looked at here before torch sees it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from toolchain.engine.info import (
    ARGUMENTS,
    ENGINE_FIELD,
    PLACEHOLDER_OPERATOR,
    EngineInfo,
    check_fields,
    completed,
)
from toolchain.errors import MalformedArtifactError
from toolchain.io.strict_json import load_json
from toolchain.limits import OWN_PROGRAM, JsonLimit

PLACEHOLDER_TARGET = f"torch.ops.{PLACEHOLDER_OPERATOR.replace('::', '.')}.default"


@dataclass(frozen=True)
class Placeholder:
    """What a placeholder node says of its engine.

    Attributes:
        name: the node's name.
        fields: its engine info; the engine field is a token.
    """

    name: str
    fields: tuple[str, ...]

    @property
    def token(self) -> str:
        return self.fields[ENGINE_FIELD]

    def info(self, where: str) -> EngineInfo:
        return EngineInfo.parse(self.fields, where=where)


@dataclass(frozen=True)
class PlaceholderNode(Placeholder):
    """A placeholder node of a parsed graph.

    Attributes:
        node: the node itself, as parsed.
    """

    node: dict[str, Any]

    @property
    def inputs(self) -> list[Any]:
        """The tensors that the engine takes, as the graph names them."""
        found: list[Any] = self.node["inputs"][0]["arg"]["as_tensors"]
        return found

    @property
    def outputs(self) -> list[Any]:
        """The tensors that the engine gives."""
        results = self.node.get("outputs") or [{}]
        found: list[Any] = results[0].get("as_tensors") or [result.get("as_tensor") for result in results]
        return found


def parse_graph(skeleton: bytes, *, where: str, limit: JsonLimit = OWN_PROGRAM) -> dict[str, Any]:
    """Parses a skeleton whole; what is not our own needs a limit.

    Raises:
        MalformedArtifactError: it is not a graph that torch.export wrote.
    """
    document = load_json(skeleton, where=where, limit=limit)
    try:
        nodes = document["graph_module"]["graph"]["nodes"]
    except (KeyError, TypeError):
        nodes = None
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise MalformedArtifactError("the graph cannot be read: it is not an exported program's graph", where=where)
    return dict(document)


def dump_graph(document: dict[str, Any]) -> bytes:
    """A graph's JSON in UTF-8, without blanks. Raises ValueError for NaN and infinities."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def nodes(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The graph's nodes, in order."""
    found: list[dict[str, Any]] = document["graph_module"]["graph"]["nodes"]
    return found


def placeholder_nodes(document: dict[str, Any], *, where: str) -> list[PlaceholderNode]:
    """The placeholder nodes in graph order, found by their operator, their fields counted.

    Raises:
        MalformedArtifactError: a node's arguments are not engine info.
    """
    return [read_placeholder(node, where) for node in nodes(document) if is_placeholder(node)]


def is_placeholder(node: dict[str, Any]) -> bool:
    """Whether a node stands for an engine."""
    return node.get("target") == PLACEHOLDER_TARGET


def read_placeholder(node: dict[str, Any], where: str) -> PlaceholderNode:
    """The engine info of a placeholder node.

    Raises:
        MalformedArtifactError: the node's arguments are not engine info.
    """
    try:
        fields = tuple(argument["arg"]["as_string"] for argument in node["inputs"][1:])
        node["inputs"][0]["arg"]["as_tensors"]
    except (KeyError, TypeError, IndexError):
        raise MalformedArtifactError(
            "the graph cannot be read: a placeholder node's arguments are not tensors and engine info", where=where
        ) from None
    name = str(node.get("name"))
    fields = completed(fields)
    check_fields(fields, where=f"{where}, node {name}")
    return PlaceholderNode(name, fields, node)


def set_field(node: PlaceholderNode, index: int, value: str) -> None:
    """Writes one field of a placeholder node's engine info."""
    node.node["inputs"][1 + index]["arg"] = {"as_string": value}


def set_fields(node: PlaceholderNode, fields: Sequence[str]) -> None:
    """Writes the whole engine info of a placeholder node, under the names of the operator's arguments."""
    arguments = [
        {"name": name, "arg": {"as_string": value}, "kind": 1} for name, value in zip(ARGUMENTS, fields, strict=False)
    ]
    node.node["inputs"][1:] = arguments


def strip_traces(document: dict[str, Any]) -> None:
    """Takes out the source lines, paths and module classes of the machine that built the graph."""
    for value in dicts(document):
        if isinstance(value.get("metadata"), dict):
            value["metadata"] = {}


def drop_code(document: dict[str, Any]) -> None:
    """Takes out what torch would run or import and no program needs: traces, and guards, which are Python source."""
    strip_traces(document)
    document["guards_code"] = []


def set_devices(document: dict[str, Any], kind: str, index: int | None) -> None:
    """Puts every tensor and every factory operator of the graph on one device."""
    for value in dicts(document):
        if value.keys() == {"type", "index"} and isinstance(value["type"], str):
            value["type"], value["index"] = kind, index


def dicts(value: Any) -> Iterator[dict[str, Any]]:
    """Every dictionary in a parsed document."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
