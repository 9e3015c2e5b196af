"""The checks that an artifact must pass before it is loaded: integrity, structure, and no code that torch would run.

::

    from toolchain import open_artifact
    from toolchain.checker import check_structure, require_safe_to_load

    with open_artifact("resnet50.pt2") as artifact:
        artifact.check_integrity()
        check_structure(artifact)  # includes require_safe_to_load
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.lazy import lazy_names

if TYPE_CHECKING:
    from toolchain.checker.safety import require_safe_to_load
    from toolchain.checker.structure import LEVELS, check_structure

__all__ = ["LEVELS", "check_structure", "require_safe_to_load"]

# Loading an artifact needs only one of these modules, and each takes time to import.
__getattr__ = lazy_names(
    __name__,
    {
        "LEVELS": "toolchain.checker.structure",
        "check_structure": "toolchain.checker.structure",
        "require_safe_to_load": "toolchain.checker.safety",
    },
)
