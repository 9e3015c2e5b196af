"""What is asked of a graph's text before anything trusts it, gathered in one pass that holds one piece at a time."""

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
_COST_OF_A_TREESPEC = 100  # the shortest takes as long as that many characters of a long one
# Values are variables of the Python code that torch makes of a graph, and runs.
_VARIABLES = frozenset(("name", "as_name"))
# Parameters, buffers and constants are attributes in that code; what is no identifier stands there in quotation marks.
_ATTRIBUTES = frozenset(
    ("parameter_name", "buffer_name", "tensor_constant_name", "custom_obj_name", "user_input_name", "path_name")
)
_KEYS = frozenset(("target", "expr_str", "in_spec", "out_spec", "metadata")) | _VARIABLES | _ATTRIBUTES
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|")
_ATTRIBUTE = re.compile(r"""[^"'\\{}\x00-\x1f\x7f-\x9f\u2028\u2029]*""")


@dataclass(frozen=True)
class PlacedNode(Placeholder):
    """A placeholder node, and where it stands.

    Attributes:
        start: where its text begins, in characters.
        end: where its text ends.
    """

    start: int
    end: int


@dataclass
class Claims:
    """The texts of a graph that torch looks up, imports or evaluates, each different one once.

    Attributes:
        operators: what nodes call.
        expressions: symbolic sizes.
        treespecs: how calls are packed.
        guarded: whether there is Python source in it.
        annotated: whether a node has metadata.
        unnamable: a name that could be more than one in the code that torch makes of the graph.
    """

    operators: set[str] = field(default_factory=set)
    expressions: set[str] = field(default_factory=set)
    treespecs: set[str] = field(default_factory=set)
    guarded: bool = False
    annotated: bool = False
    unnamable: str | None = None
    _read: Counter[Limit] = field(default_factory=Counter)

    def take(self, value: dict[str, Any]) -> None:
        """Takes in what one object of the graph says, the objects in it left aside.

        Raises:
            ValueError: there is more than is read.
        """
        for key in _KEYS.intersection(value):
            self.take_member(key, value[key])
        if "target" in value and value.get("metadata"):
            self.annotated = True

    def take_member(self, key: str, member: Any) -> None:
        """Takes in one member of an object."""
        if key in _VARIABLES or key in _ATTRIBUTES:
            allowed = _VARIABLE if key in _VARIABLES else _ATTRIBUTE
            # Older releases of torch gave nodes no name.
            if member is not None and not (isinstance(member, str) and allowed.fullmatch(member)):
                self.unnamable = str(member)
            return
        # What is no text is none that is allowed either: the name of its type in brackets.
        text = member if isinstance(member, str) else f"<{type(member).__name__}>"
        if key == "target":
            self._add(self.operators, text, OPERATORS, 1)
        elif key == "expr_str":
            # One that is too long is none that is allowed, and is not parsed.
            long = EXPRESSION.excess(len(text)) is not None
            self._add(self.expressions, text[: EXPRESSION.most + 1], EXPRESSIONS, 0 if long else len(text))
        elif key in ("in_spec", "out_spec"):
            self._add(self.treespecs, text, TREESPECS, len(text) + _COST_OF_A_TREESPEC)

    def _add(self, texts: set[str], text: str, limit: Limit, cost: int) -> None:
        if text not in texts:
            texts.add(text)
            self._read[limit] += cost
            if self._read[limit] > limit.most:
                raise LimitError(limit, self._read[limit])


@dataclass(frozen=True)
class GraphFacts:
    """What one pass over a graph's text found."""

    claims: Claims
    placeholders: list[PlacedNode]


def read_facts(text: bytes, *, where: str) -> GraphFacts:
    """Reads a graph's text without its engines; its memory is that of one piece.

    Raises:
        MalformedArtifactError: it is not a graph that torch.export wrote, or more of it than is read.
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
    """The same of a parsed document that is no graph, such as a list of tensors.

    Raises:
        MalformedArtifactError: it says more than is read.
    """
    claims = Claims()
    with json_errors(where):
        for value in dicts(document):
            claims.take(value)
    return claims
