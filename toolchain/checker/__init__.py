"""What an artifact must satisfy before anyone loads it: structure, integrity, and nothing in it that runs code.

::

    from toolchain import open_artifact
    from toolchain.checker import check_structure, require_safe_to_load

    with open_artifact("resnet50.pt2") as artifact:
        artifact.check_integrity()
        check_structure(artifact)  # includes require_safe_to_load
"""

from __future__ import annotations

from toolchain.checker.safety import require_safe_to_load
from toolchain.checker.structure import LEVELS, check_structure

__all__ = ["LEVELS", "check_structure", "require_safe_to_load"]
