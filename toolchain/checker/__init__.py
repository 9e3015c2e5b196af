"""What an artifact must satisfy before anyone loads it: structure, integrity, and nothing in it that runs code.

::

    from toolchain import open_artifact
    from toolchain.checker import check_structure, require_safe_to_load

    with open_artifact("resnet50.pt2") as artifact:
        artifact.check_integrity()
        check_structure(artifact)  # includes require_safe_to_load
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolchain.checker.safety import require_safe_to_load
    from toolchain.checker.structure import LEVELS, check_structure

__all__ = ["LEVELS", "check_structure", "require_safe_to_load"]

_HOMES = {
    "LEVELS": "toolchain.checker.structure",
    "check_structure": "toolchain.checker.structure",
    "require_safe_to_load": "toolchain.checker.safety",
}


def __getattr__(name: str) -> Any:
    # Loading an artifact needs one file of these, and each takes its time to import.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
