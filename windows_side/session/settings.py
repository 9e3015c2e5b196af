"""What a session was asked for, checked: as ``windows_side.options``, without pydantic, which takes long to import."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from toolchain.errors import UsageError
from toolchain.manifest.checks import FieldError
from toolchain.manifest.records import Record
from toolchain.signing.policy import Policy, read_policy


class _Checked(Record):
    device: str
    allow_unlisted_gpu: bool
    runtime_cache: bool | str
    trust: str | None


@dataclass(frozen=True)
class SessionSettings:
    """The settings of a session that ``load`` has too; ``load``'s docstring says what each means."""

    device: str
    allow_unlisted_gpu: bool
    policy: Policy | None
    runtime_cache: bool | str
    trust: str | None


def read_settings(
    *,
    device: Any,
    allow_unlisted_gpu: Any,
    policy: str | os.PathLike[str] | Policy | None,
    runtime_cache: Any,
    trust: Any,
) -> SessionSettings:
    """
    Raises:
        UsageError: one is of the wrong type, or the policy cannot be read.
    """
    if type(device) is int:
        device = f"cuda:{device}"
    elif hasattr(device, "type") and hasattr(device, "index"):  # torch's
        device = str(device)
    try:
        checked = _Checked(
            device=device,
            allow_unlisted_gpu=allow_unlisted_gpu,
            runtime_cache=os.fspath(runtime_cache) if isinstance(runtime_cache, os.PathLike) else runtime_cache,
            trust=trust,
        )
    except FieldError as error:
        [name] = error.path
        raise UsageError(f"{name} cannot be so: {error.problem}", where=f"Session({name}=)") from error
    return SessionSettings(
        checked.device,
        checked.allow_unlisted_gpu,
        None if policy is None else read_policy(policy),
        checked.runtime_cache,
        checked.trust,
    )
