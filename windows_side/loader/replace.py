"""Replaces placeholder nodes by ``execute_engine`` nodes over real engines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    CustomObjArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
)

from toolchain.engine.info import CURRENT_ABI, ENGINE_FIELD, FIELDS, PLACEHOLDER_OPERATOR, check_fields
from toolchain.errors import IncompatibleError, MalformedArtifactError
from toolchain.io.base64_stream import TEXT_CHUNK, decode_stream
from toolchain.names import unique_name
from windows_side.launch_lock import LAUNCH_LOCK

_NAME_FIELD = FIELDS.index("name")

# Makes an engine from engine info, which has the engine itself as bytes.
EngineFactory = Callable[[list[str | bytes]], Any]


def replace_execute_engine_no_op_node(
    exported_program: ExportedProgram, *, engine_factory: EngineFactory | None = None
) -> ExportedProgram:
    """Replaces the placeholder nodes of a loaded program by ``execute_engine`` nodes.

    Nodes are found by their operator. The engine's base64 is decoded strictly, and the ABI version and the number
    of fields are checked before a constructor sees them. The engines become constants of the program, under names
    that nothing else has, so that the result can be saved again.

    Args:
        exported_program: the program that ``torch.export.load`` returned; it is not changed.
        engine_factory: makes an engine from engine info; by default a ``torch.classes.tensorrt.Engine``.

    Raises:
        MalformedArtifactError: there is no placeholder node, its engine info is wrong, or TensorRT refuses an engine.
        IncompatibleError: an engine's ABI version is not the one of this runtime.
    """
    calls = []
    for node in _nodes_of(exported_program, PLACEHOLDER_OPERATOR):
        where = f"node {node.name}"
        fields = list(node.args[1:])
        check_fields(fields, where=where)
        fields[ENGINE_FIELD] = _decode(fields[ENGINE_FIELD], where)
        calls.append((node.name, fields))
    if not calls:
        raise MalformedArtifactError(
            "the program has no placeholder node",
            where="replace_execute_engine_no_op_node()",
            remedy="give a cross-compiled program whose engines are not in place yet",
        )
    return replace_nodes(exported_program, {name: partial(list, fields) for name, fields in calls}, engine_factory)


def replace_nodes(
    program: ExportedProgram,
    engine_infos: dict[str, Callable[[], list[str | bytes]]],
    engine_factory: EngineFactory | None = None,
) -> ExportedProgram:
    """Replaces each named node by an ``execute_engine`` node on the same inputs, which are its first argument.

    Args:
        program: the exported program; it is not changed.
        engine_infos: by node name, a function that returns the engine info with the engine as bytes. Each is called
            once, and its result is released before the next call, so that one engine's bytes are in memory at a time.
        engine_factory: makes an engine from engine info; by default a ``torch.classes.tensorrt.Engine``.
    """
    factory = engine_factory or make_engine
    gm = _copied(program)
    constants, specs = dict(program.constants), []
    taken = {spec.target for spec in program.graph_signature.input_specs} | set(program.state_dict) | set(constants)
    first_user = _first_user_input(gm, program)
    for node in list(gm.graph.nodes):
        if node.name not in engine_infos:
            continue
        fields = engine_infos.pop(node.name)()
        target = unique_name(attribute_name(str(fields[_NAME_FIELD])), taken.__contains__)
        taken.add(target)
        constants[target] = factory(fields)
        del fields
        with gm.graph.inserting_before(first_user):
            engine = gm.graph.placeholder(f"obj_{target}")
        engine.target = engine.name
        argument = CustomObjArgument(name=engine.name, class_fqn=_class_name(constants[target]))
        engine.meta["val"] = argument
        specs.append(InputSpec(InputKind.CUSTOM_OBJ, argument, target))
        _replace(gm, node, engine)
    gm.graph.lint()
    gm.recompile()
    signature = program.graph_signature
    position = next(
        (i for i, s in enumerate(signature.input_specs) if s.kind is InputKind.USER_INPUT),
        len(signature.input_specs),
    )
    input_specs = [*signature.input_specs[:position], *specs, *signature.input_specs[position:]]
    return ExportedProgram(
        root=gm,
        graph=gm.graph,
        graph_signature=ExportGraphSignature(input_specs, signature.output_specs),
        state_dict=program.state_dict,
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=constants,
    )


def attribute_name(name: str) -> str:
    """Returns an engine's name as a safe attribute name, because torch writes it into Python code and runs that."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name) or "engine"


def make_engine(fields: list[str | bytes]) -> Any:
    """Makes a real engine from engine info. The checks are here because the C++ constructor has none.

    Args:
        fields: the engine info; it is emptied, so that memory has one copy of the engine less.

    Raises:
        MalformedArtifactError: the list has the wrong length, or TensorRT refuses the engine.
        IncompatibleError: the engine's ABI version is not the one of this runtime.
    """
    where = f"engine {fields[_NAME_FIELD]!r}" if len(fields) > _NAME_FIELD else "engine info"
    check_fields(fields, where=where)
    if fields[0] != str(CURRENT_ABI):
        raise IncompatibleError(
            f"the engine is of ABI version {fields[0]!r}, and this runtime takes {CURRENT_ABI}",
            where=where,
            remedy="install the Torch-TensorRT release that `trtcross check` names",
        )
    try:
        with LAUNCH_LOCK.launching:
            return torch.classes.tensorrt.Engine(_handed_over(fields))
    except RuntimeError as error:
        raise MalformedArtifactError(
            f"TensorRT does not take this engine: {error}",
            where=where,
            remedy="`trtcross check` says whether it fits this machine; otherwise build it again",
        ) from error


def _handed_over(fields: list[str | bytes]) -> Iterator[str | bytes]:
    """Yields each field without keeping it: torch's ``createGenericList`` takes any iterable, and copies each field."""
    fields.reverse()
    while fields:
        yield fields.pop()


def _nodes_of(program: ExportedProgram, operator: str) -> list[torch.fx.Node]:
    name = operator.replace("::", ".") + ".default"
    return [node for node in program.graph.nodes if node.op == "call_function" and str(node.target) == name]


def _replace(gm: torch.fx.GraphModule, node: torch.fx.Node, engine: torch.fx.Node) -> None:
    with gm.graph.inserting_before(node):
        call = gm.graph.call_function(torch.ops.tensorrt.execute_engine.default, (node.args[0], engine))
    values = node.meta["val"]
    call.meta["val"] = list(values) if isinstance(values, (list, tuple)) else [values]
    node.replace_all_uses_with(call)
    gm.graph.erase_node(node)


def _copied(program: ExportedProgram) -> torch.fx.GraphModule:
    graph = torch.fx.Graph()
    graph.output(graph.graph_copy(program.graph, {}))
    copied = torch.fx.GraphModule(program.graph_module, graph)
    copied.meta = dict(program.graph_module.meta)
    return copied


def _first_user_input(gm: torch.fx.GraphModule, program: ExportedProgram) -> torch.fx.Node:
    names = set(program.graph_signature.user_inputs)
    nodes: Sequence[torch.fx.Node] = list(gm.graph.nodes)
    others = (node for node in nodes if node.op != "placeholder")
    return next((node for node in nodes if node.op == "placeholder" and node.name in names), None) or next(others)


def _class_name(engine: Any) -> str:
    return engine._type().qualified_name() if isinstance(engine, torch.ScriptObject) else type(engine).__qualname__


def _decode(text: object, where: str) -> bytes:
    """Decodes base64 text in memory as strictly as :mod:`toolchain.io.base64_stream` does."""
    if not isinstance(text, str) or not text.isascii():
        raise MalformedArtifactError(
            "the engine in this node is not base64 text",
            where=where,
        )
    data = text.encode("ascii")
    chunks = (data[start : start + TEXT_CHUNK] for start in range(0, len(data), TEXT_CHUNK))
    return b"".join(decode_stream(chunks, None, where=where))
