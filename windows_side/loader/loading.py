"""``load``: digests, preflight, decode, engines, replace. Each engine is decoded once, straight from the file."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from toolchain.artifact import Artifact, open_artifact
from toolchain.checker.classes import check_classes
from toolchain.checker.graph import classes_in
from toolchain.checker.safety import require_safe_to_load
from toolchain.container.entry_names import GRAPH_ENTRY, is_tensor_list
from toolchain.container.reader import ZipEntry
from toolchain.container.splice import spliced_archive
from toolchain.engine.info import ENGINE_FIELD, FIELDS
from toolchain.errors import (
    IncompatibleError,
    MalformedArtifactError,
    MissingComponentError,
    TrtcrossError,
    UsageError,
)
from toolchain.graph.document import set_devices
from toolchain.graph.text_edits import on_device, with_texts
from toolchain.host.requirements import Requirement
from toolchain.io.strict_json import load_json
from toolchain.limits import TENSOR_LIST
from toolchain.manifest.models import Manifest
from toolchain.signing.policy import Policy, read_policy
from toolchain.targets import DEVICE, Backend
from windows_side.execution.current_gpu import keep_current_gpu
from windows_side.execution.kernel_cache import RuntimeCache, identity_on
from windows_side.execution.model import LoadedModel
from windows_side.kernel_files import default_folder
from windows_side.loader.replace import EngineFactory, replace_nodes
from windows_side.loader.runtime_library import load_runtime
from windows_side.options import LoadOptions
from windows_side.preflight.admission import admit

_DEVICE_FIELD = FIELDS.index("device")

# Stands for a placeholder node while torch reads the graph. Upstream's own operator is left to upstream: defining it
# here would make a later `import torch_tensorrt` fail.
_LIBRARY = torch.library.Library("trtcross", "DEF")
_LIBRARY.define("engine(Tensor[] inputs, str token) -> Tensor[]")
# TensorRT-RTX's strategies for engines of dynamic shapes. A captured graph would keep the slower kernels that serve
# while those for a call's very shapes are compiled.
_COMPILE_BESIDE_THE_CALL, _COMPILE_BEFORE_THE_CALL = 0, 1

# torch.export.load keeps the reader at work in a global variable.
_READING = Lock()

_ENGINE_TARGET = "torch.ops.trtcross.engine.default"


def load(
    artifact: str | os.PathLike[str] | Artifact,
    device: str | torch.device = DEVICE,
    *,
    allow_unlisted_gpu: bool = False,
    policy: str | os.PathLike[str] | Policy | None = None,
    cuda_graphs: bool = False,
    runtime_cache: bool | str | os.PathLike[str] = True,
    progress: bool = False,
    trust: str | None = None,
) -> LoadedModel:
    """Loads an artifact onto a GPU.

    Args:
        artifact: its path, or an open one.
        device: where every part of the graph shall run.
        allow_unlisted_gpu: take a GPU whose compute capability the engine does not list, with a warning.
        policy: who may have signed it (a policy, or its TOML file); without one, no signature is asked for.
        cuda_graphs: capture the whole program in a CUDA graph for each set of input shapes, and replay it.
        runtime_cache: keep the kernels that TensorRT-RTX compiles at the first call: in the user's cache folder, in
            a folder of your own, or not at all.
        progress: say on stderr that the first call compiles kernels, where it does.
        trust: why a foreign file (saved by Torch-TensorRT itself) is taken although torch would run code from it.

    Returns:
        A callable with the original model's signature and output structure.

    Raises:
        IncompatibleError: it cannot run on this machine, and why.
        MalformedArtifactError: it is damaged.
        MissingComponentError: torch, Torch-TensorRT or TensorRT is missing.
        UntrustedError: torch would run code from the file, or nobody whom the policy names has signed it.
        UsageError: the policy cannot be read.
    """
    options = LoadOptions(
        device=device,
        allow_unlisted_gpu=allow_unlisted_gpu,
        policy=None if policy is None else read_policy(policy),
        cuda_graphs=cuda_graphs,
        runtime_cache=runtime_cache,
        progress=progress,
        trust=trust,
    )
    if isinstance(artifact, Artifact):
        return load_artifact(artifact, options)
    with open_artifact(artifact) as opened:
        return load_artifact(opened, options)


def load_artifact(artifact: Artifact, options: LoadOptions) -> LoadedModel:
    """:func:`load`, of an open artifact and of options as data."""
    return load_admitted(artifact, admit(artifact, options), options)


def load_admitted(artifact: Artifact, doubts: Iterable[Requirement], options: LoadOptions) -> LoadedModel:
    """The part of :func:`load` behind signature and preflight, for who has asked for both before torch was imported.

    Args:
        doubts: what :func:`.admission.admit` returned for this artifact.
    """
    for doubt in doubts:
        warnings.warn(f"{doubt.name}: needs {doubt.needed}; here: {doubt.found}", stacklevel=3)
    load_runtime(artifact.manifest.target.backend)
    place = _gpu(options.device)
    keep_current_gpu()
    graphs = options.cuda_graphs
    if graphs:
        _require_fixed_outputs(artifact)
    with torch.cuda.device(place):
        program = load_program(artifact, place, local_device(place), trust=options.trust)
    artifact.container.check_unchanged()
    cache = _runtime_cache(artifact.manifest, place, options.runtime_cache)
    _configure_engines(program, artifact.manifest, cache, cuda_graphs=graphs)
    return LoadedModel(program, artifact.manifest, place, cuda_graphs=graphs, cache=cache, progress=options.progress)


def load_program(
    artifact: Artifact,
    device: torch.device,
    device_field: str | None,
    engine_factory: EngineFactory | None = None,
    *,
    trust: str | None = None,
) -> ExportedProgram:
    """The program with its engines in place, every part of it on ``device``.

    Args:
        device_field: what the engines' device field shall say, or None to leave it.
        engine_factory: ``torch.classes.tensorrt.Engine`` unless a caller says otherwise.
        trust: as :func:`load` takes it.
    """
    require_safe_to_load(artifact, trust)
    check_classes(artifact)
    artifact.check_files()
    program = _read_program(artifact, device)

    def engine_info(index: int) -> list[str | bytes]:
        fields: list[str | bytes] = list(artifact.placeholders[index].fields)
        if device_field is not None:
            fields[_DEVICE_FIELD] = device_field
        fields[ENGINE_FIELD] = artifact.engines[index].read()
        return fields

    tokens = {engine.token: engine.index for engine in artifact.engines}
    infos: dict[str, Callable[[], list[str | bytes]]] = {
        node.name: partial(engine_info, tokens[node.args[1]])
        for node in program.graph.nodes
        if node.op == "call_function" and str(node.target) == "trtcross.engine.default"
    }
    if len(infos) != len(tokens):
        raise MalformedArtifactError(
            "the graph does not hold the engines that the manifest lists",
            where=str(artifact.path),
        )
    return replace_nodes(program, infos, engine_factory)


def _gpu(device: str) -> torch.device:
    """
    Raises:
        UsageError: it is no GPU of this machine.
    """
    place = torch.device(device)
    if place.type != "cuda" or (place.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"there is no GPU {str(device)!r} here",
            where="device",
            remedy=f"engines run on cuda:0 to cuda:{torch.cuda.device_count() - 1}",
        )
    return torch.device("cuda", torch.cuda.current_device()) if place.index is None else place


def _require_fixed_outputs(artifact: Artifact) -> None:
    """
    Raises:
        IncompatibleError: the size of an engine's output depends on values, which no captured graph can follow.
    """
    names = [engine.name for engine in artifact.manifest.engines if engine.requires_output_allocator]
    if names:
        raise IncompatibleError(
            f"the outputs of {', '.join(names)} have sizes that depend on values: no CUDA graph can hold them",
            where=f"{artifact.path}, load(cuda_graphs=True)",
            remedy="load it without cuda_graphs",
        )


def _runtime_cache(
    manifest: Manifest, device: torch.device, wanted: bool | str | os.PathLike[str]
) -> RuntimeCache | None:
    identity = identity_on(manifest, device) if wanted is not False else None
    if identity is None:
        return None
    return RuntimeCache(default_folder() if isinstance(wanted, bool) else Path(wanted), identity, device)


def _configure_engines(
    program: ExportedProgram, manifest: Manifest, cache: RuntimeCache | None, *, cuda_graphs: bool
) -> None:
    """Sets what TensorRT-RTX samples when an engine first runs."""
    if manifest.target.backend is not Backend.TENSORRT_RTX:
        return
    for engine in program.constants.values():
        if isinstance(engine, torch.ScriptObject):
            strategy = _COMPILE_BEFORE_THE_CALL if cuda_graphs else _COMPILE_BESIDE_THE_CALL
            engine.update_runtime_settings(strategy, 0, cache.handle if cache else None)
            engine._auto_select_profiles = True  # upstream takes the first profile for every size


def local_device(device: torch.device) -> str:
    """The device field of engine info for a GPU of this machine."""
    properties = torch.cuda.get_device_properties(device)
    index = device.index if device.index is not None else torch.cuda.current_device()
    return f"{index}%{properties.major}%{properties.minor}%0%{properties.name}"


def _read_program(artifact: Artifact, device: torch.device) -> ExportedProgram:
    """Lets torch read the program with a token in each engine's place; weights come straight from the file."""
    entries: list[tuple[str, bytes | ZipEntry]] = []
    for name, entry in artifact.container.entries.items():
        if name == GRAPH_ENTRY:
            entries.append((name, _graph_for_torch(artifact, device)))
        elif is_tensor_list(name):
            entries.append((name, _on_device(artifact.read_entry(name), name, device)))
        elif not name.startswith(("extra/", "trtcross/")):
            entries.append((name, entry))
    _require_known_classes(artifact)
    # What is loaded in inference mode could not be changed outside of it, and a model may change its buffers.
    with spliced_archive(artifact.container, entries) as file, _READING, torch.inference_mode(False):
        try:
            return torch.export.load(file)
        except TrtcrossError:
            raise
        except Exception as error:
            raise MalformedArtifactError(
                f"torch {torch.__version__} cannot read the program: {error}",
                where=str(artifact.path),
                remedy="use the torch release that `trtcross check` names",
            ) from error


def _require_known_classes(artifact: Artifact) -> None:
    """
    Raises:
        MissingComponentError: the call's structure names a class that nobody has registered in this process.
    """
    known = pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE
    for words, text in (("inputs", artifact.manifest.call.in_spec), ("outputs", artifact.manifest.call.out_spec)):
        if name := next((name for name in classes_in(text) if name not in known), None):
            package = name.partition(".")[0]
            raise MissingComponentError(
                f"the model's {words} are objects of the class {name}, which is not known in this process",
                where=str(artifact.path),
                remedy=f"import {package} before load(), where it is installed; or build the model again with this "
                "trtcross: its artifact then needs no such class",
            )


def _graph_for_torch(artifact: Artifact, device: torch.device) -> bytes:
    """The graph's text on a device, with an operator of ours in each placeholder's place; edited, not parsed again."""
    text = artifact.graph_text.decode()
    replaced = [(node.start, node.end, _engine_node(text[node.start : node.end])) for node in artifact.placeholders]
    return on_device(with_texts(text, replaced), device.type, device.index).encode()


def _engine_node(text: str) -> str:
    node = json.loads(text)
    inputs = node["inputs"][0]
    token = {"name": "token", "arg": node["inputs"][1 + ENGINE_FIELD]["arg"], "kind": inputs["kind"]}
    return json.dumps({**node, "target": _ENGINE_TARGET, "inputs": [inputs, token]})


def _on_device(data: bytes, name: str, device: torch.device) -> bytes:
    document: dict[str, Any] = load_json(data, where=name, limit=TENSOR_LIST)
    set_devices(document, device.type, device.index)
    return json.dumps(document).encode()
