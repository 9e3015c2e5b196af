"""Loads the model that the user names, as an exported program on the CPU with golden samples."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from linux_side.frontend.data_attributes import DataAttributes
from linux_side.frontend.dynamic_shapes import (
    enlarge_unit_dimensions,
    profiles_for,
    program_guards,
    require_dynamic,
    shapes_for_export,
)
from linux_side.frontend.factory_result import read_result
from linux_side.frontend.golden import Recording, record_golden, too_large
from linux_side.frontend.hidden_state import adopt_written_constants, export_with_state, held_tensors
from linux_side.frontend.hub.folder import open_folder, require_task_of_folder
from linux_side.frontend.leaves import input_names
from linux_side.frontend.original import Original
from linux_side.frontend.program_file import read_program
from linux_side.frontend.refuted_guards import Trial, drop_refuted_guards, require_example
from linux_side.frontend.sliding_caches import ring_caches
from linux_side.frontend.specialization import export_at_free_sizes, other_exports, refused_sizes, taken_between
from linux_side.frontend.structure import plain_program, plain_spec
from linux_side.frontend.training import require_eval
from linux_side.fx.mapped_files import FileState, file_state, require_unchanged
from linux_side.fx.sizes import compute_sizes_in_integers
from linux_side.fx.spill import sources_of
from linux_side.fx.stack_traces import quick_stack_traces
from linux_side.guards.collect import ProgramGuards
from linux_side.guards.locations import located_guards
from linux_side.guards.tracing import forget_ranges_of_expressions, unspecialized_sizes
from linux_side.options import BuildOptions, DynamicDimension
from toolchain.errors import BuildFailedError, UsageError
from toolchain.factory import FactoryName, call_factory, is_factory
from toolchain.guards.grammar import Size
from toolchain.manifest.models import ClassSpec

_HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass
class Source:
    """The model that a build starts from.

    Attributes:
        name: the model's name, for people.
        program: the program on the CPU, in the model's own precision.
        golden: the golden samples with their warnings.
        classes: the classes of the program's inputs and outputs that dicts and tuples replace.
        files: the files that the model's weights are mapped from, in their state before it was exported.
        digest: the digest of the program's graph and weights, once it is computed.
    """

    name: str
    program: ExportedProgram
    golden: Recording
    classes: list[ClassSpec] = field(default_factory=list)
    files: Mapping[Path, FileState] = field(default_factory=dict)
    digest: str | None = None


def load_source(model: str, options: BuildOptions) -> Source:
    """Loads ``MODEL``: a ``.pt2`` program, ``module:factory``, ``FILE.py:factory`` or a Hugging Face model folder.

    Raises:
        UsageError: there is no such file, module or factory, or its content or result is wrong.
        BuildFailedError: the factory, the model or torch.export fails.
    """
    require_task_of_folder(model, options.task)
    if is_factory(model):
        return _from_factory(model, options)
    return _from_folder(Path(model), options) if Path(model).is_dir() else _from_file(Path(model), options)


def original_model(model: str) -> tuple[torch.nn.Module | ExportedProgram, tuple[Any, ...], dict[str, Any]]:
    """Loads ``MODEL``, a ``.pt2`` program or a factory, onto the CPU.

    Returns:
        The model, and the positional and keyword arguments of its example.

    Raises:
        UsageError: there is no such model, or it has no example.
        BuildFailedError: the factory fails.
    """
    if is_factory(model):
        module, args, kwargs = read_result(call_factory(model), model)
        require_eval(module, where=model)
        return module, args, kwargs
    program, _ = read_program(Path(model))
    if program.example_inputs is None:
        raise UsageError("the program carries no example inputs", where=model, remedy="save it with its example inputs")
    args, kwargs = program.example_inputs
    return program, args, kwargs


def _from_file(path: Path, options: BuildOptions) -> Source:
    state = file_state(path)
    program, classes = read_program(path)
    forget_ranges_of_expressions(program)
    program = adopt_written_constants(program)
    if options.golden and program.example_inputs is None:
        raise UsageError(
            "the program carries no example inputs, so there is nothing to make golden outputs from",
            where=str(path),
            remedy="save it with its example inputs, or build with --golden 0",
        )
    golden = _record_saved(program, options) if options.golden else Recording()
    require_unchanged(path, state)
    return Source(path.stem, program, golden, classes, {path: state})


def _record_saved(program: ExportedProgram, options: BuildOptions) -> Recording:
    args, kwargs = program.example_inputs
    if why := too_large(program, pytree.tree_leaves((args, kwargs))):
        return Recording([], [f"there is no golden I/O: {why}"])
    return _record(Original(program.module(check_guards=False), args, kwargs, eager=False), program, options)


def _record(original: Original, program: ExportedProgram, options: BuildOptions) -> Recording:
    sizes = program_guards(program).sizes
    profiles = profiles_for(program, options.dynamic, sizes) if options.golden > 1 else []
    return record_golden(original, program, options.golden, profiles)


def require_precision(program: ExportedProgram, options: BuildOptions, where: str) -> None:
    """Refuses another precision for a program that is in halves already, because its weights are rounded.

    Args:
        program: the program.
        options: the build's options.
        where: the model's name.

    Raises:
        UsageError: the program's precision and the requested one differ.
    """
    found = {tensor.dtype for tensor in program.state_dict.values() if tensor.dtype in _HALVES.values()}
    asked = options.halves or options.precision
    if asked is not None and found - {_HALVES.get(asked)}:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
        raise UsageError(
            f"the program holds weights in {names} already, so --precision {asked} cannot change it",
            where=where,
            remedy="export the model in fp32, or leave --precision out to build the program as it is",
        )


def _from_factory(model: str, options: BuildOptions) -> Source:
    module, args, kwargs = read_result(call_factory(model), model)
    return export_source(FactoryName.parse(model).function, module, args, kwargs, options)


def _from_folder(path: Path, options: BuildOptions) -> Source:
    from linux_side.frontend.hub.examples import within
    from linux_side.frontend.hub.loading import load_model

    folder = open_folder(path, options.task)
    module, kwargs = load_model(folder, options.task or "")
    return export_source(folder.name, module, (), within(kwargs, options.dynamic), options)


def export_source(
    name: str, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], options: BuildOptions
) -> Source:
    """Exports a module in its own precision, and records golden samples if the options ask for them.

    Args:
        name: the model's name.
        module: the model in eval mode; its tensors keep their values.
        args: the example's positional arguments.
        kwargs: the example's keyword arguments.
        options: the build's options.

    Raises:
        UsageError: a dynamic dimension does not exist.
        BuildFailedError: the model or torch.export fails, or a part is in training mode.
    """
    require_eval(module, where=name)
    files = sources_of((*module.parameters(), *module.buffers(), *held_tensors(module).values()))
    original = Original(module, args, kwargs) if options.golden else None
    program = export_program(name, module, args, kwargs, options.dynamic)
    golden = _record(original, program, options) if original else Recording()
    return Source(name, program, golden, plain_program(program), files)


def export_program(
    name: str,
    module: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dynamic: Sequence[DynamicDimension] = (),
) -> ExportedProgram:
    """Exports a module with these dynamic dimensions.

    Args:
        name: the model's name, for errors.
        module: the model; its tensors keep their values.
        args: the example's positional arguments.
        kwargs: the example's keyword arguments.
        dynamic: the dynamic dimensions with their ranges.

    Returns:
        The program. If possible, it takes the least, typical and greatest sizes of every range.

    Raises:
        UsageError: a dynamic dimension does not exist.
        BuildFailedError: torch.export fails.
    """
    leaves, structure = pytree.tree_flatten((args, kwargs))
    names = input_names(plain_spec(structure), _argument_names(module))
    require_dynamic(dynamic, names, leaves)
    leaves = enlarge_unit_dimensions(dynamic, names, leaves)

    def export(inputs: Sequence[Any], fixed: Collection[Size] = (), *, strict: bool = False) -> ExportedProgram:
        varying = [item for item in dynamic if item.size not in fixed]
        shapes = shapes_for_export(varying, names, inputs)
        lowest = {item.size: item.lowest for item in varying}
        args, kwargs = pytree.tree_unflatten(list(inputs), structure)
        with torch.no_grad(), located_guards(), unspecialized_sizes(lowest), quick_stack_traces():
            program = export_with_state(lambda model: _exported(model, args, kwargs, shapes, strict), module)
            compute_sizes_in_integers(program.graph_module)
        return program

    export_strict = partial(export, strict=True)
    by_bytecode: list[ExportedProgram] = []

    def export_bytecode(calls: Sequence[Sequence[Any]]) -> ExportedProgram | None:
        """Exports by tracing Python's bytecode (strict mode); None if that fails or its results are not the model's."""
        try:
            program = export_strict(calls[0])
        except Exception:  # noqa: BLE001 - torch and the model may raise any class; the caller reports its first error
            return None
        if not all(map(Trial(program, module, export_strict).agrees, calls)):
            return None
        by_bytecode.append(program)
        return program

    program, exported_with = export_at_free_sizes(export, export_bytecode, module, dynamic, names, leaves, name)
    if not dynamic:
        return program

    def settled(program: ExportedProgram, inputs: Sequence[Any]) -> ProgramGuards:
        guards = program_guards(program)
        again = export_strict if any(program is one for one in by_bytecode) else export
        drop_refuted_guards(Trial(program, module, again), leaves, guards)
        if inputs is not leaves:
            require_example(leaves, guards, name)
        return guards

    guards = settled(program, exported_with)
    refused = refused_sizes(guards, dynamic)
    best = -len(refused), taken_between(guards, dynamic)
    others = other_exports(export, export_bytecode, dynamic, names, leaves, refused) if refused else ()
    for other, inputs in others:
        try:
            guards = settled(other, inputs)
        except BuildFailedError:
            continue
        refused = refused_sizes(guards, dynamic)
        if (covers := (-len(refused), taken_between(guards, dynamic))) > best:
            program, best = other, covers
        if not refused:
            break
    return program


def _exported(model: torch.nn.Module, args: Any, kwargs: Any, shapes: Any, strict: bool) -> ExportedProgram:
    with ring_caches(model), nullcontext() if strict else DataAttributes(model):
        program = torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=strict)
    # Strict mode makes a constant of what the model assigns to `.data`, and the constant has no values.
    if without := [name for name, value in program.constants.items() if isinstance(value, FakeTensor)]:
        raise BuildFailedError(
            f"torch.export made constants without values: {', '.join(without)}",
            where=type(model).__name__,
            remedy="look for tensors that forward creates and keeps, or assigns to the .data of another one",
        )
    return program


def _argument_names(module: torch.nn.Module) -> list[str]:
    parameters = inspect.signature(module.forward).parameters.values()
    names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    variadic = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
    return names + [f"{name}_{index}" for name in variadic for index in range(64)]
