"""Finds state that a model does not register as a buffer, such as tensors in a list or in a cache object.

torch.export treats such a tensor as a constant although the program writes into it, and may freeze its first value. If
that happens, the model is exported again with those tensors as buffers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, ExportGraphSignature, InputKind, InputSpec

_DEPTH = 8  # how many levels of attributes and elements below the module are searched
_OF_TORCH = ("_parameters", "_buffers", "_modules")


@dataclass(frozen=True)
class Place:
    """The place of a tensor: an attribute of an object, an element of a list, or a value of a dict.

    Attributes:
        holder: the object, list or dict.
        key: the attribute's name, the index or the key.
        path: the dotted path from the module.
    """

    holder: Any
    key: Any
    path: str

    def put(self, tensor: torch.Tensor) -> None:
        """Puts a tensor into this place."""
        if isinstance(self.holder, (list, dict)):
            self.holder[self.key] = tensor
        else:
            setattr(self.holder, self.key, tensor)


def own_copy(module: torch.nn.Module) -> torch.nn.Module | None:
    """Copies a module with its buffers, caches and counters, but shares its parameters.

    Returns:
        The copy; None if the module cannot be copied.
    """
    shared: dict[int, Any] = {id(parameter): parameter for parameter in module.parameters()}
    try:
        return copy.deepcopy(module, shared)
    except Exception:  # noqa: BLE001 - an attribute may refuse to be copied: a lock, a file, a non-leaf tensor
        return None


def held_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Returns the tensors of a module that are neither buffers nor parameters, by names derived from their paths."""
    known = {id(tensor) for tensor in (*module.buffers(), *module.parameters())}
    return {_buffer_name(p): _at(p) for p in _places(module) if id(_at(p)) not in known}


@contextmanager
def state_kept(module: torch.nn.Module, *, after_errors_alone: bool = False) -> Iterator[None]:
    """Restores a module's buffers and other tensors, except parameters, at the end of the block.

    Args:
        module: the module.
        after_errors_alone: whether to restore them only if the block raises.
    """
    held = {id(tensor): tensor for tensor in (*module.buffers(), *held_tensors(module).values())}
    tensors = [tensor for tensor in held.values() if not tensor.requires_grad]
    before = [tensor.clone() for tensor in tensors]
    keep = not after_errors_alone
    try:
        yield
    except BaseException:
        keep = True
        raise
    finally:
        for tensor, value in zip(tensors, before, strict=True):
            if keep and not torch.equal(tensor, value):
                tensor.copy_(value)


def export_with_state(export: Callable[[torch.nn.Module], ExportedProgram], module: torch.nn.Module) -> ExportedProgram:
    """Exports a module so that every tensor that its program writes into is a buffer.

    Args:
        export: exports a module.
        module: the module; its tensors keep their values.
    """
    fresh = own_copy(module) or module  # a trace may change more than tensors, such as the length of a cache
    with state_kept(module):
        program = export(module)
    written = {id(program.constants[target]) for target in _written_constants(program).values()}
    by_path = {place.path: place for place in _places(fresh)}
    places = [by_path[p.path] for p in _places(module) if id(_at(p)) in written and p.path in by_path]
    if places:
        with state_kept(fresh), _as_buffers(fresh, places):
            program = export(fresh)
    return adopt_written_constants(program)


def adopt_written_constants(program: ExportedProgram) -> ExportedProgram:
    """Returns a program in which the constants that it writes into are buffers; the original is unchanged."""
    written = _written_constants(program)
    return _with_buffers(program, written) if written else program


def written_parameters(program: ExportedProgram) -> list[str]:
    """Returns the names of the parameters that a program's operators write into."""
    parameters = program.graph_signature.inputs_to_parameters
    return sorted({parameters[name] for name in _written(program.graph) if name in parameters})


@contextmanager
def _as_buffers(module: torch.nn.Module, places: list[Place]) -> Iterator[None]:
    """Registers the tensors at these places as buffers, and puts the buffers into the places while forward runs."""
    forward = module.forward
    originals = [_at(place) for place in places]
    names = {id(buffer): name for name, buffer in module.named_buffers()}
    added = []
    for place, tensor in zip(places, originals, strict=True):
        if id(tensor) not in names:
            names[id(tensor)] = _buffer_name(place)
            module.register_buffer(names[id(tensor)], tensor, persistent=False)
            added.append(names[id(tensor)])

    def put(tensors: list[torch.Tensor]) -> None:
        for place, tensor in zip(places, tensors, strict=True):
            place.put(tensor)

    def forward_with_buffers(*args: Any, **kwargs: Any) -> Any:
        put([module.get_buffer(names[id(tensor)]) for tensor in originals])
        try:
            return forward(*args, **kwargs)
        finally:
            put(originals)

    forward_with_buffers.__wrapped__ = forward  # type: ignore[attr-defined]  # gives it forward's signature
    vars(module)["forward"] = forward_with_buffers
    try:
        yield
    finally:
        del vars(module)["forward"]
        for name in added:
            delattr(module, name)


def _buffer_name(place: Place) -> str:
    return place.path.replace(".", "_")


def _at(place: Place) -> Any:
    return place.holder[place.key] if isinstance(place.holder, (list, dict)) else getattr(place.holder, place.key)


def _places(module: torch.nn.Module) -> Iterator[Place]:
    """Yields the places of a module's tensors, except parameters and registered buffers."""
    for holder, path in _holders(module):
        for key, value in _members(holder):
            kept = isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter)
            if kept and not isinstance(holder, tuple):
                yield Place(holder, key, f"{path}.{key}" if path else str(key))


def holders(module: torch.nn.Module) -> Iterator[Any]:
    """Yields every module, list, dict and object that a module reaches through attributes and elements."""
    for holder, _ in _holders(module):
        yield holder


def _holders(module: torch.nn.Module) -> Iterator[tuple[Any, str]]:
    seen: set[int] = set()

    def inside(holder: Any, path: str, depth: int) -> Iterator[tuple[Any, str]]:
        if isinstance(holder, torch.Tensor) or id(holder) in seen or depth == 0:
            return
        seen.add(id(holder))
        yield holder, path
        for key, value in _members(holder):
            yield from inside(value, f"{path}.{key}" if path else str(key), depth - 1)

    yield from inside(module, "", _DEPTH)


def _members(holder: Any) -> list[tuple[Any, Any]]:
    if isinstance(holder, dict):
        return list(holder.items())
    if isinstance(holder, (list, tuple)):
        return list(enumerate(holder))
    if isinstance(holder, torch.nn.Module):
        own = [(name, value) for name, value in vars(holder).items() if name not in _OF_TORCH]
        return [*holder.named_children(), *own]
    return list(vars(holder).items()) if hasattr(holder, "__dict__") and not isinstance(holder, type) else []


def _written_constants(program: ExportedProgram) -> dict[str, str]:
    """Returns the constants that operators write into, by their placeholders' names."""
    constants = program.graph_signature.inputs_to_lifted_tensor_constants
    return {name: constants[name] for name in _written(program.graph) if name in constants}


def _written(graph: torch.fx.Graph) -> Iterator[str]:
    """Yields the names of the placeholders that operators write into, directly or through views."""
    origins: dict[torch.fx.Node, torch.fx.Node] = {node: node for node in graph.find_nodes(op="placeholder")}
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        if not isinstance(node.target, torch._ops.OpOverload):  # such as getitem of a split
            if node.args and node.args[0] in origins:
                origins[node] = origins[node.args[0]]
            continue
        for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
            if isinstance(value, torch.fx.Node) and value in origins and argument.alias_info is not None:
                origins.setdefault(node, origins[value])
                if argument.alias_info.is_write:
                    yield origins[value].name


def _with_buffers(program: ExportedProgram, names: Mapping[str, str]) -> ExportedProgram:
    """Returns a copy of the program in which these constants, given by their placeholders' names, are buffers."""
    specs: list[InputSpec] = [
        replace(spec, kind=InputKind.BUFFER, persistent=False)
        if not isinstance(spec.arg, ConstantArgument) and spec.arg.name in names
        else spec
        for spec in program.graph_signature.input_specs
    ]
    adopted = ExportedProgram(
        root=program.graph_module,
        graph=copy.deepcopy(program.graph),
        graph_signature=ExportGraphSignature(specs, list(program.graph_signature.output_specs)),
        state_dict=program.state_dict,
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=program.constants,
        verifiers=program.verifiers,
    )
    adopted._guards_code = program._guards_code
    return adopted
