"""State: the buffers and inputs that running a model changes, such as a KV cache.

TensorRT has no state. While a model is compiled, its state becomes additional inputs and outputs of the graph. In the
exported program it is the model's own again, and each change is declared as torch.export declares it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputSpec, OutputKind

from linux_side.fx.graph_copy import set_attribute

# A token only orders side effects, such as the checks of linear algebra.
_NO_STATE = (OutputKind.USER_OUTPUT, OutputKind.TOKEN)
# The key of a graph's list of changes in its metadata.
STATE = "trtcross_state"


@dataclass(frozen=True)
class StateChange:
    """A tensor that running the model changes.

    Attributes:
        kind: whether it is a buffer or an input of the caller's.
        target: the buffer's name, or the input's placeholder.
        placeholder: the name of the placeholder for its old value.
        value: the buffer's initial value; None for an input.
    """

    kind: OutputKind
    target: str
    placeholder: str
    value: torch.Tensor | None = None


def state_to_inputs(program: ExportedProgram) -> torch.fx.GraphModule:
    """Returns the program as a graph in which every change of state is an output.

    New values come after the user's outputs, and the old values of buffers after the user's inputs. The graph's
    metadata has the list of changes under ``STATE``, if there are any.
    """
    gm = program.module(check_guards=False)
    specs = [s for s in program.graph_signature.output_specs if s.kind not in _NO_STATE]
    if not specs:
        return gm
    output = gm.graph.output_node()
    copies = [n for n in gm.graph.nodes if n.target is torch.ops.aten.copy_.default and n.next is not None]
    changes, results = [], list[torch.fx.Node]()
    for spec, copied in zip(specs, copies[-len(specs) :], strict=True):
        old, new = copied.args
        changes.append(_change(gm, program, spec.kind, str(spec.target), old))
        results.append(new)
        copied.replace_all_uses_with(new)  # a changed tensor may be returned too
        gm.graph.erase_node(copied)
    output.args = ((*output.args[0], *results),)
    gm.graph.set_codegen(torch.fx.graph.CodeGen())
    gm.meta[STATE] = changes
    gm.recompile()
    return gm


def _change(
    gm: torch.fx.GraphModule, program: ExportedProgram, kind: OutputKind, target: str, old: torch.fx.Node
) -> StateChange:
    if old.op == "placeholder":
        return StateChange(kind, target, old.name)
    last = [node for node in gm.graph.nodes if node.op == "placeholder"][-1:] or [gm.graph._root]
    with gm.graph.inserting_after(last[0]):
        placeholder = gm.graph.placeholder(f"state_{target.replace('.', '_')}")
    placeholder.meta = dict(old.meta)
    old.replace_all_uses_with(placeholder)
    gm.graph.erase_node(old)
    values = program.state_dict if target in program.state_dict else program.constants
    return StateChange(kind, target, placeholder.name, values[target])


def state_to_attributes(gm: torch.fx.GraphModule, original: Mapping[str, InputSpec]) -> list[StateChange]:
    """Makes a compiled graph read its buffers from the module again instead of from inputs.

    Args:
        gm: the compiled graph, changed in place.
        original: the original program's input specs by target, which record whether a buffer is persistent.

    Returns:
        The changes of state. Their new values are the graph's last outputs.
    """
    changes: list[StateChange] = gm.meta.get(STATE, [])
    placeholders = {node.name: node for node in gm.graph.nodes if node.op == "placeholder"}
    first = next((node for node in gm.graph.nodes if node.op != "placeholder"), None)
    for change in changes:
        if change.value is None:
            continue
        spec = original.get(change.target)
        set_attribute(gm, change.target, change.value, persistent=spec.persistent if spec else True)
        placeholder = placeholders[change.placeholder]
        with gm.graph.inserting_before(first):
            read = gm.graph.get_attr(change.target)
        read.meta = dict(placeholder.meta)
        placeholder.replace_all_uses_with(read)
        gm.graph.erase_node(placeholder)
    return changes
