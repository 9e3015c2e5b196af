"""Checks the settings of a session as ``windows_side.options`` does, without pydantic, which takes long to import."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO, Any

from toolchain.artifact import Artifact
from toolchain.errors import UsageError
from toolchain.manifest.checks import FieldError
from toolchain.manifest.records import Record
from toolchain.signing.policy import Policy, read_policy
from windows_side.kernel_choice import KernelChoice

Source = str | os.PathLike[str] | bytes | IO[bytes] | Artifact

_CONTEXTS_LIMIT = 64


class _Checked(Record):
    device: str
    allow_unlisted_gpu: bool
    runtime_cache: bool | str
    trust: str | None
    kernels: KernelChoice


@dataclass(frozen=True)
class Request:
    """The arguments of :class:`.session.Session`, whose docstring describes them."""

    artifact: Source
    device: int | str
    stream: Any
    contexts: int
    cuda_graphs: bool
    allow_unlisted_gpu: bool
    policy: str | os.PathLike[str] | Policy | None
    runtime_cache: bool | str | os.PathLike[str]
    trust: str | None
    kernels: KernelChoice


@dataclass(frozen=True)
class SessionSettings:
    """The settings of a session, checked.

    Attributes:
        stream: the number of the CUDA stream, or None for one of the session's own.
    """

    device: str
    stream: int | None
    contexts: int
    cuda_graphs: bool
    allow_unlisted_gpu: bool
    policy: Policy | None
    runtime_cache: bool | str
    trust: str | None
    kernels: KernelChoice


def read_settings(request: Request) -> SessionSettings:
    """Checks the arguments of a session.

    Raises:
        UsageError: an argument is of the wrong type or out of range, or the policy cannot be read.
    """
    device: Any = request.device
    if type(device) is int:
        device = f"cuda:{device}"
    elif hasattr(device, "type") and hasattr(device, "index"):  # torch's
        device = str(device)
    cache = request.runtime_cache
    try:
        checked = _Checked(
            device=device,
            allow_unlisted_gpu=request.allow_unlisted_gpu,
            runtime_cache=os.fspath(cache) if isinstance(cache, os.PathLike) else cache,
            trust=request.trust,
            kernels=request.kernels,
        )
    except FieldError as error:
        [name] = error.path
        raise UsageError(f"{name} cannot have this value: {error.problem}", where=f"Session({name}=)") from error
    return SessionSettings(
        checked.device,
        None if request.stream is None else _stream_handle(request.stream),
        _checked_count(request.contexts),
        request.cuda_graphs,
        checked.allow_unlisted_gpu,
        None if request.policy is None else read_policy(request.policy),
        checked.runtime_cache,
        checked.trust,
        checked.kernels,
    )


def _checked_count(contexts: int) -> int:
    """Returns the number of contexts if it is one.

    Raises:
        UsageError: it is not a whole number, or is out of range.
    """
    if type(contexts) is not int or not 1 <= contexts <= _CONTEXTS_LIMIT:
        raise UsageError(f"{contexts!r} is no number of contexts", where="contexts", remedy=f"1 to {_CONTEXTS_LIMIT}")
    return contexts


def _stream_handle(stream: Any) -> int:
    """Returns the number of a CUDA stream.

    Raises:
        UsageError: the object is not a CUDA stream.
    """
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("cuda_stream", "ptr", "handle"):
        if hasattr(stream, name):
            return int(getattr(stream, name))
    try:
        return int(stream)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{stream!r} is no CUDA stream", where="stream", remedy="pass its number, or torch's or cupy's object"
        ) from error
