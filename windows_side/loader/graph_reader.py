"""Reads an artifact's graph from its JSON, without torch's reader and what that imports.

Everything is read strictly: an operator must be registered with torch, arguments must be those of its schema, and a
name must have been defined before. A form that torch may write and that is not read here is an
:class:`.UnknownFormError`.
"""

from __future__ import annotations

import keyword
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from toolchain.graph.document import is_placeholder, nodes, read_placeholder
from toolchain.names import unique_name
from windows_side.execution.old_values import keep_old_values
from windows_side.loader.graph_operators import UnknownFormError, operator_of
from windows_side.loader.graph_values import Values, the_only
from windows_side.loader.replace import attribute_name

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STATE = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
_POSITIONAL, _KEYWORD = 1, 2
_LISTS = ("as_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools")


@dataclass(frozen=True)
class ReadGraph:
    """A graph from the leaves of a call to the leaves of its result.

    Attributes:
        graph: reads weights, buffers, constants and engines as attributes of its module.
        attributes: the names of the attributes that are weights, buffers and constants.
        engines: the name of each engine's attribute, in graph order.
        state: the names of the buffers that calls change.
        changed_inputs: the inputs that calls change, as indices among the inputs that are tensors.
        in_spec: the structure of ``(args, kwargs)``.
        out_spec: the structure of the result.
    """

    graph: torch.fx.Graph
    attributes: list[str]
    engines: list[str]
    state: tuple[str, ...]
    changed_inputs: tuple[int, ...]
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec


def read_graph(document: dict[str, Any], tokens: Sequence[str], device: torch.device, *, where: str) -> ReadGraph:
    """Reads a parsed graph whose texts have been found plain (:func:`toolchain.checker.graph.graph_problems`).

    Args:
        document: the parsed JSON.
        tokens: the token of each engine, in graph order.
        device: where everything is, whatever the graph states.
        where: the graph's place, for errors.

    Raises:
        UnknownFormError: the graph has a form that torch may write and that is not read here.
        LookupError, TypeError, ValueError, AttributeError: the graph is not as torch writes one.
    """
    return _Reader(document, tokens, device, where).read()


class _Reader:
    def __init__(self, document: dict[str, Any], tokens: Sequence[str], device: torch.device, where: str) -> None:
        self._document, self._where = document, where
        self._graph = torch.fx.Graph()
        self._values = Values(device)
        self._tokens = list(tokens)
        module = document["graph_module"]
        self._module = module["graph"]
        self._inputs: list[Any] = module["signature"]["input_specs"]
        self._outputs: list[Any] = module["signature"]["output_specs"]
        self._call: dict[str, Any] = module["module_call_graph"][0]["signature"]
        self._attributes: dict[str, torch.fx.Node] = {}
        self._engines: list[torch.fx.Node] = []
        self._tensors: list[str] = []  # inputs that are tensors
        self._state: list[str] = []
        self._changed: list[int] = []

    def read(self) -> ReadGraph:
        if self._module.get("is_single_tensor_return"):
            raise UnknownFormError("a graph that returns a tensor by itself")
        self._read_inputs()
        for node in nodes(self._document):
            self._read_node(node)
        self._read_outputs()
        keep_old_values(self._graph, len(self._state) + len(self._changed))
        self._drop_unused_results()
        return ReadGraph(
            self._graph,
            list(self._attributes),
            [str(engine.target) for engine in self._engines],
            tuple(self._state),
            tuple(self._changed),
            pytree.treespec_loads(self._call["in_spec"]),
            pytree.treespec_loads(self._call["out_spec"]),
        )

    def _read_inputs(self) -> None:
        pairs = list(zip(self._module["inputs"], map(the_only, self._inputs), strict=True))
        for value, (kind, spec) in pairs:
            if kind in _STATE:
                self._read_state(kind, spec, value)
        self._place_engines()
        for index, (value, (kind, spec)) in enumerate(pairs):
            if kind == "user_input":
                self._read_user_input(value, spec)
            elif kind == "constant_input":
                self._placeholder(spec["name"] or f"arg{index}")
            elif kind not in _STATE:
                raise UnknownFormError(f"an input of the kind {kind[:40]!r}")

    def _read_state(self, kind: str, spec: dict[str, Any], value: Any) -> None:
        if the_only(value) != ("as_tensor", spec["arg"]):
            raise ValueError("an input is not the one that the signature names")
        target = spec[_STATE[kind]]
        if not isinstance(target, str) or target in self._attributes:
            raise ValueError(f"two inputs are {str(target)[:80]!r}, or it is no name")
        self._attributes[target] = self._attribute(target)
        self._values.name(spec["arg"]["name"], self._attributes[target])

    def _attribute(self, target: str) -> torch.fx.Node:
        return self._graph.create_node("get_attr", target)

    def _place_engines(self) -> None:
        """Makes an attribute for each engine, named after the engine in its node."""
        found = [read_placeholder(node, self._where) for node in nodes(self._document) if is_placeholder(node)]
        if [placeholder.token for placeholder in found] != self._tokens:
            raise ValueError("its engines are not those that the manifest lists")
        taken = set(self._attributes)
        for placeholder in found:
            target = unique_name(attribute_name(placeholder.info(self._where).name), taken.__contains__)
            taken.add(target)
            self._engines.append(self._attribute(target))

    def _read_user_input(self, value: Any, spec: dict[str, Any]) -> None:
        kind, content = the_only(value)
        if spec["arg"] != value:
            raise ValueError("an input is not the one that the signature names")
        if kind == "as_tensor":
            self._tensors.append(content["name"])
            self._values.name(content["name"], self._placeholder(content["name"]))
        elif kind == "as_sym_int" and "as_name" in content:
            self._values.name(content["as_name"], self._placeholder(content["as_name"]))
        else:
            raise UnknownFormError(f"an input of the kind {kind[:40]!r}")

    def _placeholder(self, name: Any) -> torch.fx.Node:
        # torch writes the name into Python code, as a function's parameter.
        if not isinstance(name, str) or not _NAME.fullmatch(name) or keyword.iskeyword(name):
            raise ValueError(f"{str(name)[:80]!r} is no name of an input")
        node = self._graph.placeholder(name)
        if node.name != name:  # a name of Python's own, or one that is taken
            node.target = node.name
        return node

    def _read_node(self, node: dict[str, Any]) -> None:
        if is_placeholder(node):
            self._read_engine(node)
            return
        target = operator_of(node["target"])
        arguments = [(argument["name"], argument["kind"], argument["arg"]) for argument in node["inputs"]]
        if isinstance(target, torch._ops.OpOverload) and target is not torch.ops.aten.item.default:
            args, kwargs = self._by_schema(target, arguments)
        else:
            args, kwargs = tuple(self._values.read(value) for _, _, value in arguments), {}
        made = self._graph.create_node("call_function", target, args, kwargs, name=node.get("name"))
        self._read_results(made, node["outputs"])

    def _read_engine(self, node: dict[str, Any]) -> None:
        placeholder = read_placeholder(node, self._where)
        engine = self._engines[self._tokens.index(placeholder.token)]
        inputs = [self._values.tensor(value) for value in placeholder.inputs]
        call = self._graph.call_function(torch.ops.tensorrt.execute_engine.default, (inputs, engine))
        for index, value in enumerate(placeholder.outputs):
            self._result(call, index, "as_tensor", value)

    def _by_schema(
        self, target: torch._ops.OpOverload, arguments: Sequence[tuple[str, Any, Any]]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = {name: (kind, self._values.read(value)) for name, kind, value in arguments}
        if len(given) != len(arguments):
            raise ValueError(f"{target} has an argument twice")
        args, kwargs = list[Any](), dict[str, Any]()
        for index, parameter in enumerate(target._schema.arguments):
            if parameter.name not in given:
                if not parameter.has_default_value():
                    raise ValueError(f"{target} lacks the argument {parameter.name!r}")
                continue
            kind, value = given.pop(parameter.name)
            if kind == _POSITIONAL and index == len(args) and not parameter.kwarg_only:
                args.append(value)
            elif kind == _KEYWORD and not keyword.iskeyword(parameter.name):
                kwargs[parameter.name] = value
            else:
                raise UnknownFormError(f"the argument {parameter.name!r} of {target}, of the kind {kind!r}")
        if given:
            raise ValueError(f"{target} has no argument {min(given)[:80]!r}")
        return tuple(args), kwargs

    def _read_results(self, node: torch.fx.Node, outputs: Sequence[Any]) -> None:
        if not outputs:
            return
        values = list(map(the_only, outputs))
        if len(values) == 1:
            [(kind, content)] = values
            if kind == "as_none":
                return
            if kind not in _LISTS:
                self._name(node, kind, content)
                return
            values = [(kind.removesuffix("s"), item) for item in content]
        for index, (kind, content) in enumerate(values):
            self._result(node, index, kind, content)

    def _result(self, node: torch.fx.Node, index: int, kind: str, content: Any) -> None:
        """Reads one of several results of a node."""
        item = self._graph.call_function(operator.getitem, (node, index))
        if kind == "as_none":
            return
        if kind in _LISTS:
            for place, part in enumerate(content):
                self._result(item, place, kind.removesuffix("s"), part)
            return
        self._name(item, kind, content)

    def _name(self, node: torch.fx.Node, kind: str, content: Any) -> None:
        if kind == "as_tensor":
            self._values.name(content["name"], node)
        elif kind in ("as_sym_int", "as_sym_float", "as_sym_bool") and "as_name" in content:
            self._values.name(content["as_name"], node)
        else:
            raise UnknownFormError(f"a result of the kind {kind[:40]!r}")

    def _read_outputs(self) -> None:
        results, copies = [], dict[torch.fx.Node, torch.fx.Node]()
        for value, (kind, spec) in zip(self._module["outputs"], map(the_only, self._outputs), strict=True):
            if kind == "user_output":
                if spec["arg"] != value:
                    raise ValueError("an output is not the one that the signature names")
                results.append(self._values.read(value))
                continue
            changed = self._changes(kind, spec)
            if the_only(value) != ("as_tensor", spec["arg"]):
                raise ValueError("an output is not the one that the signature names")
            source = self._values.tensor(spec["arg"])
            copies[source] = self._graph.call_function(torch.ops.aten.copy_.default, (changed, source))
        self._graph.output(tuple(copies.get(result, result) if _is_node(result) else result for result in results))

    def _drop_unused_results(self) -> None:
        """Removes unused results of nodes that have several: a result with a name stays in memory longer."""
        for node in reversed(self._graph.nodes):
            if node.target is operator.getitem and not node.users:
                self._graph.erase_node(node)

    def _changes(self, kind: str, spec: dict[str, Any]) -> torch.fx.Node:
        """Returns the node of the buffer or the input that a call changes, and records the change."""
        if kind == "buffer_mutation":
            name = spec["buffer_name"]
            self._state.append(name)
            return self._attributes[name]
        if kind == "user_input_mutation":
            name = spec["user_input_name"]
            self._changed.append(self._tensors.index(name))
            return self._values.node(name)
        raise UnknownFormError(f"an output of the kind {kind[:40]!r}")


def _is_node(value: Any) -> bool:
    return isinstance(value, torch.fx.Node)
