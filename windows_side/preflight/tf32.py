"""The requirement about the variable that decides whether TensorRT-RTX computes products of fp32 in TF32."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache

from toolchain.engine.tf32 import VARIABLE, needed_value
from toolchain.host.requirements import Requirement, State
from toolchain.manifest.models import Manifest
from toolchain.targets import Backend

NAME = "tf32"


@cache
def first_value() -> str | None:
    """Returns what the variable was when it was first asked for: the process's first engine kept it for all others."""
    return os.environ.get(VARIABLE)


def tf32_requirement(manifest: Manifest) -> Iterator[Requirement]:
    """Yields whether this process's environment fits the engines, where they need it to be set or it is set."""
    if manifest.target.backend is not Backend.TENSORRT_RTX or "tf32" not in manifest.settings:
        return
    needed = needed_value(manifest.target.backend, manifest.settings)
    first, here = first_value(), os.environ.get(VARIABLE)
    if needed == first == here is None:
        return
    wanted = f"{VARIABLE} {'not set' if needed is None else f'to be {needed}'}: it was built with "
    wanted += "TF32" if needed is None else "--no-tf32"
    remedy = (
        f"remove {VARIABLE} from the environment before Python starts, or build it with --no-tf32"
        if needed is None
        else f"set {VARIABLE}={needed} before Python starts; artifacts with TF32 need another process"
    )
    found = ("not set" if here is None else here) + ("" if first == here else ", and it was changed in this process")
    if needed == first == here:
        yield Requirement(NAME, State.MET, wanted, found)
    else:
        yield Requirement(NAME, State.NOT_MET, wanted, found, remedy)
