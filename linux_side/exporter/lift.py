"""Replaces ``get_attr`` nodes by placeholders, which an exported program has in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._guards import detect_fake_mode
from torch.export.graph_signature import CustomObjArgument, InputKind, InputSpec, TensorArgument

from linux_side.fx.graph_copy import get_attribute, owner_of

# The kinds of inputs in the order of an exported program, with the prefix of each kind's placeholders.
_PREFIX = {
    InputKind.PARAMETER: "p_",
    InputKind.BUFFER: "b_",
    InputKind.CONSTANT_TENSOR: "c_",
    InputKind.CUSTOM_OBJ: "obj_",
}


@dataclass
class Lifted:
    """The attributes that were lifted out of a graph.

    Attributes:
        specs: their input specs, in placeholder order; they precede the user's inputs.
        state_dict: parameters and persistent buffers.
        constants: all other attributes.
    """

    specs: list[InputSpec] = field(default_factory=list)
    state_dict: dict[str, torch.Tensor] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)


def lift(gm: torch.fx.GraphModule, original: Mapping[str, InputSpec] | None = None) -> Lifted:
    """Replaces the graph's ``get_attr`` nodes, in place, by placeholders before the user's inputs.

    Parameters come first, then buffers, constants and custom objects, each in the order of first use. Dtype,
    strides and ``requires_grad`` are those of the tensor.

    Args:
        gm: a graph without submodules.
        original: the original program's input specs by target. They take precedence over the module, because
            partitioning registers every tensor as a persistent buffer.
    """
    reads: dict[str, list[torch.fx.Node]] = {}
    for node in gm.graph.nodes:
        if node.op == "get_attr":
            reads.setdefault(node.target, []).append(node)
    specs = {target: _spec(gm, target, (original or {}).get(target)) for target in reads}
    lifted = Lifted()
    first = next(iter(gm.graph.nodes))
    for kind in _PREFIX:
        for target in (t for t in reads if specs[t][0] is kind):
            value = get_attribute(gm, target)
            with gm.graph.inserting_before(first):
                placeholder = _placeholder(gm, kind, target, value, reads[target][0])
            for read in reads[target]:
                read.replace_all_uses_with(placeholder)
                gm.graph.erase_node(read)
            _record(lifted, placeholder, target, value, *specs[target])
    return lifted


def _spec(gm: torch.fx.GraphModule, target: str, original: InputSpec | None) -> tuple[InputKind, bool | None]:
    """Returns the kind of an attribute and, for a buffer, whether it is persistent."""
    owner, leaf = owner_of(gm, target)
    value = getattr(owner, leaf)
    if not isinstance(value, torch.Tensor):
        return InputKind.CUSTOM_OBJ, None
    if isinstance(value, torch.nn.Parameter):
        return InputKind.PARAMETER, None
    if original is not None and original.kind in (InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
        return original.kind, original.persistent
    if leaf in owner._buffers:
        return InputKind.BUFFER, leaf not in owner._non_persistent_buffers_set
    return InputKind.CONSTANT_TENSOR, None


def _placeholder(
    gm: torch.fx.GraphModule, kind: InputKind, target: str, value: Any, read: torch.fx.Node
) -> torch.fx.Node:
    node = gm.graph.placeholder(_PREFIX[kind] + target.replace(".", "_"))
    node.target = node.name  # fx made it unique in the graph; the attribute's own name need not be
    if isinstance(value, torch.Tensor):
        node.meta["val"] = _fake_mode(gm).from_tensor(value, static_shapes=True)
    else:
        node.meta["val"] = CustomObjArgument(name=node.name, class_fqn=class_name(value))
    return node


def class_name(value: Any) -> str:
    """Returns the name of a custom object's class in torch."""
    return value._type().qualified_name() if isinstance(value, torch.ScriptObject) else type(value).__qualname__


def _record(
    lifted: Lifted, placeholder: torch.fx.Node, target: str, value: Any, kind: InputKind, persistent: bool | None
) -> None:
    if kind is InputKind.CUSTOM_OBJ:
        argument: Any = CustomObjArgument(name=placeholder.name, class_fqn=class_name(value))
    else:
        argument = TensorArgument(name=placeholder.name)
    lifted.specs.append(InputSpec(kind, argument, target, persistent))
    in_state_dict = kind is InputKind.PARAMETER or (kind is InputKind.BUFFER and persistent)
    (lifted.state_dict if in_state_dict else lifted.constants)[target] = value


def _fake_mode(gm: torch.fx.GraphModule) -> Any:
    values = [node.meta.get("val") for node in gm.graph.nodes]
    mode = detect_fake_mode([value for value in values if isinstance(value, torch.Tensor)])
    return mode if mode is not None else torch._subclasses.FakeTensorMode()
