"""Gathers the facts about a graph's text that are checked before it is trusted, in one pass, piece by piece."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from toolchain.errors import MalformedArtifactError
from toolchain.graph.document import Placeholder, dicts, is_placeholder, read_placeholder
from toolchain.io.json_pieces import CHUNK, Piece, PieceLimits, json_pieces
from toolchain.io.strict_json import json_errors
from toolchain.limits import (
    EXPRESSION,
    EXPRESSIONS,
    GRAPH,
    GRAPH_OBJECTS,
    GRAPH_PIECE,
    GRAPH_PIECES,
    GRAPH_VALUES,
    OPERATORS,
    TREESPECS,
    Limit,
    LimitError,
)

_NODES = ("graph_module", "graph", "nodes")
_GUARDS = "guards_code"
_TREESPEC_COST = 100  # characters of a long one that take as long as the shortest one
# Members that name values: torch makes Python code of a graph and runs it, and values are variables there.
_VARIABLES = frozenset(("name", "as_name"))
# Members that name parameters, buffers and constants: these are attributes in that code, quoted if no identifiers.
_ATTRIBUTES = frozenset(
    ("parameter_name", "buffer_name", "tensor_constant_name", "custom_obj_name", "user_input_name", "path_name")
)
_KEYS = frozenset(("target", "expr_str", "in_spec", "out_spec", "metadata")) | _VARIABLES | _ATTRIBUTES
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|")
_ATTRIBUTE = re.compile(r"""[^"'\\{}\x00-\x1f\x7f-\x9f\u2028\u2029]*""")


@dataclass(frozen=True)
class PlacedNode(Placeholder):
    """A placeholder node with its position.

    Attributes:
        start: where its text begins in the graph's text, in characters.
        end: where its text ends.
    """

    start: int
    end: int


@dataclass
class Claims:
    """The texts of a graph that torch looks up, imports or evaluates, each once.

    Attributes:
        operators: the targets of nodes.
        expressions: symbolic sizes.
        treespecs: the structures of calls.
        guarded: whether the graph holds Python source.
        annotated: whether a node has metadata.
        unnamable: a name that would be more than a name in the code that torch makes of the graph, if there is one.
    """

    operators: set[str] = field(default_factory=set)
    expressions: set[str] = field(default_factory=set)
    treespecs: set[str] = field(default_factory=set)
    guarded: bool = False
    annotated: bool = False
    unnamable: str | None = None
    _read: Counter[Limit] = field(default_factory=Counter)

    def take(self, value: dict[str, Any]) -> None:
        """Adds the texts of one object of the graph, without those of objects in it.

        Raises:
            LimitError: there is more than is read.
        """
        for key in _KEYS.intersection(value):
            self.take_member(key, value[key])
        if "target" in value and value.get("metadata"):
            self.annotated = True

    def take_member(self, key: str, member: Any) -> None:
        """Adds the text of one member of an object.

        Raises:
            LimitError: there is more than is read.
        """
        if key in _VARIABLES or key in _ATTRIBUTES:
            allowed = _VARIABLE if key in _VARIABLES else _ATTRIBUTE
            # Older releases of torch write None for a node's name.
            if member is not None and not (isinstance(member, str) and allowed.fullmatch(member)):
                self.unnamable = str(member)
            return
        # A member that is no text is recorded as its type in brackets, which no check allows.
        text = member if isinstance(member, str) else f"<{type(member).__name__}>"
        if key == "target":
            self._add(self.operators, text, OPERATORS, 1)
        elif key == "expr_str":
            # An expression that is too long is cut to a length that no check allows, and is never parsed.
            long = EXPRESSION.excess(len(text)) is not None
            self._add(self.expressions, text[: EXPRESSION.most + 1], EXPRESSIONS, 0 if long else len(text))
        elif key in ("in_spec", "out_spec"):
            self._add(self.treespecs, text, TREESPECS, len(text) + _TREESPEC_COST)

    def _add(self, texts: set[str], text: str, limit: Limit, cost: int) -> None:
        if text not in texts:
            texts.add(text)
            self._read[limit] += cost
            if self._read[limit] > limit.most:
                raise LimitError(limit, self._read[limit])


@dataclass(frozen=True)
class GraphFacts:
    """The facts that one pass over a graph's text found."""

    claims: Claims
    placeholders: list[PlacedNode]


def read_facts(text: bytes, *, where: str) -> GraphFacts:
    """Reads a graph's text without its engines; one piece of it is in memory at a time.

    Raises:
        MalformedArtifactError: the text is not a graph that torch.export wrote, or exceeds a limit.
    """
    if problem := GRAPH.excess(text):
        raise MalformedArtifactError(f"the JSON cannot be read: it {problem}", where=where)
    claims, placeholders, found = Claims(), list[PlacedNode](), False
    chunks = (text[start : start + CHUNK] for start in range(0, len(text), CHUNK))
    pieces = json_pieces(
        chunks,
        depth=len(_NODES) + 1,
        limits=PieceLimits(GRAPH_PIECES, GRAPH_PIECE, GRAPH_VALUES, GRAPH_OBJECTS),
        where=where,
        keys=_KEYS,
        on_object=claims.take,
    )
    with json_errors(where):
        for piece in pieces:
            if piece.path[:-1] == _NODES:
                if not isinstance(piece.value, dict):
                    found = False
                    break
                if is_placeholder(piece.value):
                    placeholders.append(_placed(piece, where))
            elif piece.path == _NODES:
                found = isinstance(piece.value, list)
            elif piece.path and isinstance(piece.path[-1], str) and (name := piece.path[-1]) in _KEYS:
                claims.take_member(name, piece.value)
            if piece.path[:1] == (_GUARDS,) and (piece.value or len(piece.path) > 1):
                claims.guarded = True
    if not found:
        raise MalformedArtifactError("the graph cannot be read: it is not an exported program's graph", where=where)
    return GraphFacts(claims, placeholders)


def _placed(piece: Piece, where: str) -> PlacedNode:
    node = read_placeholder(piece.value, where)
    return PlacedNode(node.name, node.fields, piece.start, piece.end)


def claims_of(document: Any, *, where: str) -> Claims:
    """Gathers the claims of a parsed document other than a graph, such as a list of tensors.

    Raises:
        MalformedArtifactError: the document exceeds a limit.
    """
    claims = Claims()
    with json_errors(where):
        for value in dicts(document):
            claims.take(value)
    return claims
