"""Reads a parsed graph (torch's ``_export/serde/schema.py``) and changes it as data.

It needs no torch: a graph is checked here before torch sees it.
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
    """A placeholder node: its name and its engine info.

    Attributes:
        name: the node's name.
        fields: the engine info; its engine field is a token.
    """

    name: str
    fields: tuple[str, ...]

    @property
    def token(self) -> str:
        """The token in the engine's place."""
        return self.fields[ENGINE_FIELD]

    def info(self, where: str) -> EngineInfo:
        """Parses the fields as engine info.

        Raises:
            MalformedArtifactError: a field is wrong.
        """
        return EngineInfo.parse(self.fields, where=where)


@dataclass(frozen=True)
class PlaceholderNode(Placeholder):
    """A placeholder node of a parsed graph, with the node itself, so that it can be changed.

    Attributes:
        node: the node itself, as parsed.
    """

    node: dict[str, Any]

    @property
    def inputs(self) -> list[Any]:
        """The engine's input tensors, as the graph refers to them."""
        found: list[Any] = self.node["inputs"][0]["arg"]["as_tensors"]
        return found

    @property
    def outputs(self) -> list[Any]:
        """The engine's output tensors, as the graph refers to them."""
        results = self.node.get("outputs") or [{}]
        found: list[Any] = results[0].get("as_tensors") or [result.get("as_tensor") for result in results]
        return found


def parse_graph(skeleton: bytes, *, where: str, limit: JsonLimit = OWN_PROGRAM) -> dict[str, Any]:
    """Parses a graph's text into a document, all at once.

    Args:
        skeleton: the graph's text, with a token in each engine's place.
        where: the file and entry, for errors.
        limit: how much is read; a text from outside needs a limit lower than the default.

    Raises:
        MalformedArtifactError: the text is not a graph that torch.export wrote, or exceeds the limit.
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
    """Writes a graph as JSON in UTF-8, without blanks.

    Raises:
        ValueError: the document holds a NaN or an infinity.
    """
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def nodes(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the graph's nodes, in order."""
    found: list[dict[str, Any]] = document["graph_module"]["graph"]["nodes"]
    return found


def placeholder_nodes(document: dict[str, Any], *, where: str) -> list[PlaceholderNode]:
    """Returns the placeholder nodes, in the order of the graph.

    Raises:
        MalformedArtifactError: a node's arguments are not engine info.
    """
    return [read_placeholder(node, where) for node in nodes(document) if is_placeholder(node)]


def is_placeholder(node: dict[str, Any]) -> bool:
    """Whether a node is a placeholder for an engine."""
    return node.get("target") == PLACEHOLDER_TARGET


def read_placeholder(node: dict[str, Any], where: str) -> PlaceholderNode:
    """Reads a placeholder node and checks the number of its fields.

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
    """Writes the whole engine info of a placeholder node, with the operator's names of arguments."""
    arguments = [
        {"name": name, "arg": {"as_string": value}, "kind": 1} for name, value in zip(ARGUMENTS, fields, strict=False)
    ]
    node.node["inputs"][1:] = arguments


def strip_traces(document: dict[str, Any]) -> None:
    """Removes nodes' metadata: source lines, paths and module classes of the machine that built the graph."""
    for value in dicts(document):
        if isinstance(value.get("metadata"), dict):
            value["metadata"] = {}


def drop_code(document: dict[str, Any]) -> None:
    """Removes what torch would run or import and no program needs: traces, and guards, which are Python source."""
    strip_traces(document)
    document["guards_code"] = []


def set_devices(document: dict[str, Any], kind: str, index: int | None) -> None:
    """Puts every tensor and every factory operator of the graph on one device."""
    for value in dicts(document):
        if value.keys() == {"type", "index"} and isinstance(value["type"], str):
            value["type"], value["index"] = kind, index


def dicts(value: Any) -> Iterator[dict[str, Any]]:
    """Yields every dictionary in a parsed document."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
