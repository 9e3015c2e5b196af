"""``load``: checks signature, machine and digests, then reads the program and makes its engines.

Each engine is decoded once, straight from the file.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from toolchain.artifact import Artifact, open_artifact
from toolchain.checker.classes import check_classes
from toolchain.checker.graph import classes_in
from toolchain.checker.safety import require_safe_to_load
from toolchain.errors import (
    IncompatibleError,
    MalformedArtifactError,
    MissingComponentError,
    UsageError,
)
from toolchain.host.requirements import Requirement
from toolchain.manifest.models import Manifest
from toolchain.signing.policy import Policy, read_policy
from toolchain.targets import DEVICE, Backend
from windows_side.execution.current_gpu import keep_current_gpu
from windows_side.execution.flat_program import FlatProgram, flat_program
from windows_side.execution.kernel_cache import KeptKernels, RuntimeCache, identity_on
from windows_side.execution.model import LoadedModel
from windows_side.kernel_choice import NUMBERS, KernelChoice, strategy
from windows_side.kernel_files import chosen_folder
from windows_side.loader.exported import engine_nodes, read_exported
from windows_side.loader.flat import engine_info, read_flat
from windows_side.loader.graph_operators import UnknownFormError
from windows_side.loader.replace import EngineFactory, make_engine, replace_nodes
from windows_side.loader.runtime_library import load_runtime
from windows_side.options import LoadOptions
from windows_side.preflight.admission import admit

logger = logging.getLogger("trtcross.load")


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
    contexts: int = 1,
    kernels: KernelChoice = "lazy",
) -> LoadedModel:
    """Loads an artifact onto a GPU.

    Args:
        artifact: an artifact's path, or an open artifact.
        device: the GPU on which every part of the graph runs.
        allow_unlisted_gpu: accept a GPU whose compute capability the engines do not list, with a warning.
        policy: who may have signed the artifact (a policy, or its TOML file). Without one, no signature is checked.
        cuda_graphs: capture the whole program in a CUDA graph for each set of input shapes, and replay it.
        runtime_cache: where the kernels are kept that TensorRT-RTX compiles at the first call: True means the user's
            cache folder, a path means that folder, and False means that none are kept.
        progress: report on stderr that the first call compiles kernels, where it does.
        trust: the reason to load a foreign file (saved by Torch-TensorRT itself) although torch would run code from it.
        contexts: how many calls may run at once, each in a thread and a stream of its own; weights are on the GPU once.
            More than one also needs what :class:`.Session` needs, the extra ``runtime``.
        kernels: which kernels TensorRT-RTX runs where sizes vary: ``lazy`` those for any size until those for a call's
            very sizes are compiled in the background, ``eager`` only the latter, compiled before the call (so do CUDA
            graphs), ``none`` only the former.

    Returns:
        A callable with the original model's signature and output structure.

    Raises:
        IncompatibleError: the artifact cannot run on this machine; the error states why.
        MalformedArtifactError: the artifact is damaged.
        MissingComponentError: torch, Torch-TensorRT, TensorRT or a class of the call's structure is missing.
        UntrustedError: torch would run code from the file, or nobody whom the policy names has signed it.
        UsageError: there is no such file or GPU, or the policy cannot be read.
    """
    options = LoadOptions(
        device=device,
        allow_unlisted_gpu=allow_unlisted_gpu,
        policy=None if policy is None else read_policy(policy),
        cuda_graphs=cuda_graphs,
        runtime_cache=runtime_cache,
        progress=progress,
        trust=trust,
        contexts=contexts,
        kernels=kernels,
    )
    if isinstance(artifact, Artifact):
        return load_artifact(artifact, options)
    with open_artifact(artifact) as opened:
        return load_artifact(opened, options)


def load_artifact(artifact: Artifact, options: LoadOptions) -> LoadedModel:
    """Does what :func:`load` does, with an open artifact and options as data."""
    return load_admitted(artifact, admit(artifact, options), options)


def load_admitted(artifact: Artifact, doubts: Iterable[Requirement], options: LoadOptions) -> LoadedModel:
    """Loads an artifact whose signature and preflight have passed; a verb checks both before it imports torch.

    Args:
        doubts: what :func:`.admission.admit` returned for this artifact; each gives a warning.
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
        (program, *beside), cache = _programs(artifact, place, options)
    artifact.container.check_unchanged()
    return LoadedModel(
        program,
        artifact.manifest,
        place,
        cuda_graphs=graphs,
        cache=cache,
        progress=options.progress,
        beside=beside,
    )


def _programs(
    artifact: Artifact, place: torch.device, options: LoadOptions
) -> tuple[list[FlatProgram], KeptKernels | None]:
    """Reads one program for each call that may run at once, and what keeps their kernels."""
    if options.contexts > 1:
        _require_loadable(artifact, options.trust)
        # Imported late: nothing else here needs CUDA's bindings and TensorRT's Python package.
        from windows_side.loader.contexts import programs_in_contexts

        return programs_in_contexts(artifact, place, options)
    program = load_flat(artifact, place, local_device(place), trust=options.trust)
    cache = _runtime_cache(artifact.manifest, place, options.runtime_cache)
    _configure_engines(program.engines, artifact.manifest, cache, options)
    return [program], cache


def load_program(
    artifact: Artifact,
    device: torch.device,
    device_field: str | None,
    engine_factory: EngineFactory | None = None,
    *,
    trust: str | None = None,
) -> ExportedProgram:
    """Reads the exported program with its engines in place, every part of it on ``device``.

    Args:
        device_field: the value of the engines' device field, or None to keep the one in the file.
        engine_factory: makes an engine from engine info; by default a ``torch.classes.tensorrt.Engine``.
        trust: as :func:`load` takes it.

    Raises:
        MalformedArtifactError: the artifact is damaged, or its engines are not those that the manifest lists.
        MissingComponentError: this process lacks a class of the call's structure.
        UntrustedError: torch would run code from the file.
    """
    _require_loadable(artifact, trust)
    program = read_exported(artifact, device)
    names = engine_nodes(program)
    if len(names) != len(artifact.engines):
        raise MalformedArtifactError(
            "the graph's engines are not those that the manifest lists",
            where=str(artifact.path),
        )
    tokens = {engine.token: engine.index for engine in artifact.engines}
    infos: dict[str, Callable[[], list[str | bytes]]] = {
        name: partial(engine_info, artifact, tokens[token], device_field) for name, token in names.items()
    }
    return replace_nodes(program, infos, engine_factory)


def load_flat(
    artifact: Artifact,
    device: torch.device,
    device_field: str | None,
    engine_factory: EngineFactory | None = None,
    *,
    trust: str | None = None,
) -> FlatProgram:
    """Reads the flat program with its engines in place, by our own reader.

    Only what that does not read, such as a foreign file, is read by torch.export's reader, which takes seconds to
    import.

    Args:
        device_field, engine_factory, trust: as :func:`load_program` takes them.

    Raises:
        Those of :func:`load_program`.
    """
    _require_loadable(artifact, trust)
    try:
        if artifact.foreign:
            raise UnknownFormError("it is a foreign file")
        return read_flat(artifact, device, device_field, engine_factory or make_engine)
    except UnknownFormError as reason:
        logger.info("%s is read by torch.export: %s", artifact.path, reason)
    return flat_program(load_program(artifact, device, device_field, engine_factory, trust=trust))


def _require_loadable(artifact: Artifact, trust: str | None) -> None:
    require_safe_to_load(artifact, trust)
    check_classes(artifact)
    artifact.check_files()
    _require_known_classes(artifact)


def _gpu(device: str) -> torch.device:
    """Returns the GPU that a device names.

    Raises:
        UsageError: the device is not a GPU of this machine.
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
    """Checks that calls can be captured.

    Raises:
        IncompatibleError: the size of an engine's output depends on values, and the sizes in a graph are fixed.
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
    folder = chosen_folder(wanted)
    identity = identity_on(manifest, device) if folder is not None else None
    return None if folder is None or identity is None else RuntimeCache(folder, identity, device)


def _configure_engines(
    engines: Iterable[Any], manifest: Manifest, cache: RuntimeCache | None, options: LoadOptions
) -> None:
    """Sets how engines compile and keep kernels; TensorRT-RTX reads these settings when an engine first runs."""
    if manifest.target.backend is not Backend.TENSORRT_RTX:
        return
    chosen = NUMBERS[strategy(options.kernels, cuda_graphs=options.cuda_graphs)]
    for engine in engines:
        if isinstance(engine, torch.ScriptObject):
            engine.update_runtime_settings(chosen, 0, cache.handle if cache else None)
            engine._auto_select_profiles = True  # upstream's default is the first profile, whatever the sizes


def local_device(device: torch.device) -> str:
    """Returns the device field of engine info for a GPU of this machine."""
    properties = torch.cuda.get_device_properties(device)
    index = device.index if device.index is not None else torch.cuda.current_device()
    return f"{index}%{properties.major}%{properties.minor}%0%{properties.name}"


def _require_known_classes(artifact: Artifact) -> None:
    """Checks that this process knows the classes in the call's structure.

    Raises:
        MissingComponentError: the call's structure names a class that is not registered with pytree in this process.
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
