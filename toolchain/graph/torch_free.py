"""Decides which operators of a graph need PyTorch: all but engines, arithmetic on sizes, views and some casts.

Views change only the shape, since every value of such a program is in C order. The caller's own library (numpy, or
torch if the caller has imported it) can cast an input, and a result that is only an output of the model. ONNX has casts
anywhere.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from toolchain.graph.document import is_placeholder, nodes

SIZE = "torch.ops.aten.sym_size.int"
# Functions of whole numbers, by the targets of nodes.
ARITHMETIC: dict[str, Callable[..., int]] = {
    "_operator.add": operator.add,
    "_operator.sub": operator.sub,
    "_operator.mul": operator.mul,
    "_operator.floordiv": operator.floordiv,
    "_operator.mod": operator.mod,
    "_operator.neg": operator.neg,
    "torch.sym_max": max,
    "torch.sym_min": min,
}
VIEWS = frozenset(
    f"torch.ops.aten.{name}"
    for name in (
        "view.default", "reshape.default", "_unsafe_view.default", "_reshape_copy.default", "unsqueeze.default",
        "squeeze.default", "squeeze.dim", "squeeze.dims", "flatten.using_ints", "alias.default", "detach.default",
        "clone.default",
    )
)  # fmt: skip
CAST = "torch.ops.aten._to_copy.default"
# The arguments that a cast may have; besides the dtype, none of them changes a value.
_CAST_ARGUMENTS = {"self", "dtype", "layout", "device", "pin_memory", "non_blocking", "memory_format"}


def operators_for_torch(document: dict[str, Any], *, casts: bool = False) -> Counter[str]:
    """Counts the operators of a parsed graph that only PyTorch can run.

    Args:
        document: the graph.
        casts: whether the runtime can also cast between engines.
    """
    signature = document["graph_module"]["signature"]
    inputs = set(_names([spec for spec in signature["input_specs"] if "user_input" in spec]))
    used = used_inside(document)

    def is_free(node: dict[str, Any]) -> bool:
        target = str(node.get("target"))
        if target != CAST:
            return is_placeholder(node) or target == SIZE or target in ARITHMETIC or target in VIEWS
        arguments = {argument["name"]: argument["arg"] for argument in node["inputs"]}
        if "dtype" not in arguments or not arguments.keys() <= _CAST_ARGUMENTS:
            return False
        return casts or set(_names(arguments["self"])) <= inputs or not used & set(_names(node["outputs"]))

    others = (str(node.get("target")) for node in nodes(document) if not is_free(node))
    return Counter(name.removeprefix("torch.ops.") for name in others)


def used_inside(document: dict[str, Any]) -> set[str]:
    """Returns the tensors of a parsed graph that a node uses, or that update an input or a buffer."""
    used = set(_names([node["inputs"] for node in nodes(document)]))
    for spec in document["graph_module"]["signature"]["output_specs"]:
        used |= {content["arg"]["name"] for kind, content in spec.items() if kind.endswith("_mutation")}
    return used


def surely_runs_without_torch(operators: Iterable[str]) -> bool:
    """Whether a graph with these operators outside engines needs no PyTorch for certain; with a cast, it may."""
    return all(name == SIZE or name in ARITHMETIC or name in VIEWS for name in map("torch.ops.{}".format, operators))


def listed(operators: Counter[str]) -> str:
    """Formats counted operators for people."""
    return ", ".join(f"{name} ({count} times)" if count > 1 else name for name, count in sorted(operators.items()))


def _names(part: Any) -> Iterator[str]:
    """Yields the names of tensors in a part of a graph's document."""
    if isinstance(part, list):
        for item in part:
            yield from _names(item)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key == "as_tensor":
                yield str(value["name"])
            elif key == "as_tensors":
                yield from (str(item["name"]) for item in value)
            else:
                yield from _names(value)
