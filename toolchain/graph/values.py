"""Reads inputs, outputs and call from a graph's JSON, as the manifest describes them. Needs no torch.

Leaves have the names that a build gives them: ``x``, ``images.0``, ``state.key``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from toolchain.errors import MalformedArtifactError
from toolchain.graph.document import PLACEHOLDER_TARGET, nodes
from toolchain.graph.torch_free import SIZE
from toolchain.io.strict_json import load_json
from toolchain.limits import TREESPEC
from toolchain.manifest.models import Binding, CallSpec, DynamicSize, FallbackOperator, ValueSpec
from toolchain.targets import DEVICE

# torch/_export/serde/schema.py, ScalarType
SCALAR_TYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16", 29: "float8_e4m3fn",
    30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz", 33: "float8_e8m0fnu", 34: "uint32", 35: "uint64",
}  # fmt: skip
ELEMENT_SIZES = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
}  # fmt: skip
"""Bytes of an element, by the manifest's name of its dtype."""
_SYMBOL = re.compile(r"Symbol\('(\w+)'[^()]*\)")


class GraphValues:
    """The inputs, outputs and call of a parsed graph.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: from any method: the graph is not as torch writes one.
        MalformedArtifactError: its parts contradict each other.
    """

    def __init__(self, document: dict[str, Any], *, where: str) -> None:
        self._document = document
        self._where = where
        module = document["graph_module"]
        self._tensors: dict[str, Any] = module["graph"]["tensor_values"]
        self._ranges: dict[str, Any] = document.get("range_constraints") or {}
        self._signature: dict[str, Any] = module["signature"]
        self._call: dict[str, Any] = module["module_call_graph"][0]["signature"]
        self._inputs = [_user(spec, "user_input", "constant_input") for spec in self._signature["input_specs"]]
        self._outputs = [_user(spec, "user_output", "loss_output") for spec in self._signature["output_specs"]]

    def torch_version(self) -> str:
        return str(self._document.get("torch_version", ""))

    def call(self) -> CallSpec:
        """Returns the call's structure; a positional argument without a name gets that of its tensor in the graph."""
        names = self._call.get("forward_arg_names")
        if not isinstance(names, list):
            spec = self._spec("in_spec")
            arguments = _children(_children(spec)[0]) if _children(spec) else []
            leaves = iter(self._names_in_graph())
            names = []
            for index, argument in enumerate(arguments):
                own = [next(leaves, None) for _ in range(_leaf_count(argument))]
                names.append(own[0] if argument.get("type") is None and own and own[0] else f"arg{index}")
        return CallSpec(
            in_spec=str(self._call["in_spec"]), out_spec=str(self._call["out_spec"]), argument_names=[*map(str, names)]
        )

    def inputs(self) -> list[ValueSpec]:
        """Returns the user's inputs, leaf by leaf."""
        arguments = self.call().argument_names
        names = []
        for kind, first, *rest in _paths(self._spec("in_spec")):
            whose = arguments[first] if kind == 0 and isinstance(first, int) and first < len(arguments) else first
            names.append(".".join(map(str, (whose, *rest))))
        return self._described(names, [value for value in self._inputs if value is not None])

    def outputs(self) -> list[ValueSpec]:
        """Returns the user's outputs, leaf by leaf."""
        names = [".".join(map(str, ("output", *path))) for path in _paths(self._spec("out_spec"))]
        return self._described(names, [value for value in self._outputs if value is not None])

    def bindings(self, names: tuple[str, ...], arguments: Any) -> list[Binding]:
        """Returns an engine's bindings, from the node's tensors.

        Args:
            names: the bindings' names.
            arguments: the node's tensors, each as the graph refers to it.

        Raises:
            MalformedArtifactError: the numbers of names and tensors differ.
        """
        tensors = [self._tensors[str(argument["name"])] for argument in arguments]
        if len(tensors) != len(names):
            raise MalformedArtifactError(
                f"the graph cannot be read: an engine has {len(names)} bindings, and its node {len(tensors)} tensors",
                where=self._where,
            )
        return [
            Binding(name=name, dtype=SCALAR_TYPES[tensor["dtype"]], shape=[_fixed(size) for size in tensor["sizes"]])
            for name, tensor in zip(names, tensors, strict=True)
        ]

    def fallback(self) -> list[FallbackOperator]:
        """Returns the operators that stay in PyTorch, without those that only take a tensor's size."""
        count = Counter(str(node.get("target")) for node in nodes(self._document))
        del count[PLACEHOLDER_TARGET], count[SIZE]
        return [
            FallbackOperator(operator=target.removeprefix("torch.ops."), count=number, device=DEVICE)
            for target, number in sorted(count.items())
            if target.startswith("torch.ops.")
        ]

    def _names_in_graph(self) -> list[str | None]:
        return [value[1]["name"] if value[0] == "as_tensor" else None for value in self._inputs if value is not None]

    def _spec(self, name: str) -> dict[str, Any]:
        text = self._call[name].encode()
        version, spec = load_json(text, where=self._where, limit=TREESPEC)
        if version != 1 or not isinstance(spec, dict):
            raise MalformedArtifactError(
                f"the graph cannot be read: its {name} is not one that torch writes", where=self._where
            )
        return spec

    def _described(self, names: list[str], values: list[tuple[str, Any]]) -> list[ValueSpec]:
        if len(names) != len(values):
            raise MalformedArtifactError(
                f"the graph cannot be read: it has {len(values)} values where its call has {len(names)}",
                where=self._where,
            )
        return [self._value(name, kind, value) for name, (kind, value) in zip(names, values, strict=True)]

    def _value(self, name: str, kind: str, value: Any) -> ValueSpec:
        if kind != "as_tensor":
            constant = value if kind in ("as_int", "as_float", "as_bool", "as_string") else None
            return ValueSpec(name=name, dtype=None, device=None, shape=None, value=constant)
        tensor = self._tensors[value["name"]]
        shape = [self._size(size) for size in tensor["sizes"]]
        return ValueSpec(name=name, dtype=SCALAR_TYPES[tensor["dtype"]], device=DEVICE, shape=shape)

    def _size(self, size: dict[str, Any]) -> int | DynamicSize:
        if "as_int" in size:
            return int(size["as_int"])
        symbol = _SYMBOL.sub(r"\1", str(size["as_expr"]["expr_str"]))
        bounds = self._ranges.get(symbol) or {}
        low, high = bounds.get("min_val"), bounds.get("max_val")
        return DynamicSize(symbol=symbol, min=max(low or 0, 0), max=high)


def _user(spec: dict[str, Any], *kinds: str) -> tuple[str, Any] | None:
    """Returns an input or output of the user as torch's tagged union; None for one of the program's own."""
    [(kind, content)] = spec.items()
    if kind not in kinds:
        return None
    [(tag, value)] = (content["value"] if kind == "constant_input" else content["arg"]).items()
    return tag, value


def _fixed(size: dict[str, Any]) -> int:
    return int(size["as_int"]) if "as_int" in size else -1


def _children(spec: dict[str, Any]) -> list[dict[str, Any]]:
    children = spec.get("children_spec")
    return children if isinstance(children, list) and all(isinstance(child, dict) for child in children) else []


def _leaf_count(spec: dict[str, Any]) -> int:
    return 1 if spec.get("type") is None else sum(map(_leaf_count, _children(spec)))


def _paths(spec: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yields the path of each leaf: indices, and keys for a container that has them."""
    if spec.get("type") is None:
        yield ()
        return
    children = _children(spec)
    for key, child in zip(_keys(spec.get("context"), len(children)), children, strict=True):
        for path in _paths(child):
            yield (key, *path)


def _keys(context: Any, count: int) -> list[Any]:
    """Returns a container's keys, from a dictionary's context (the JSON list of them), or else its indices."""
    try:
        keys = load_json(str(context).encode(), where="treespec", limit=TREESPEC)
    except (MalformedArtifactError, UnicodeError):
        keys = None
    if isinstance(keys, list) and len(keys) == count and all(isinstance(key, (str, int)) for key in keys):
        return keys
    return list(range(count))
