"""Writes the JSON Schemas that are generated from our models; with --check, only reports which of them are stale.

    python ci/schemas.py [--check]

``manifest-1.json`` is not among them: it never changes.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from linux_side.matrix.spec.spec import spec_schema_text  # noqa: E402
from toolchain.formats.folder_models import folder_schema_text  # noqa: E402
from toolchain.manifest import json_schema_text  # noqa: E402


def main(arguments: list[str]) -> int:
    """Returns 1 if a file was stale, even if it has been written, as a hook of pre-commit must."""
    texts = {
        "toolchain/schema/manifest-2.json": json_schema_text(2),
        "toolchain/schema/engines-1.json": folder_schema_text(),
        "linux_side/schema/matrix-1.json": spec_schema_text(),
    }
    stale = [name for name, text in texts.items() if (ROOT / name).read_text(encoding="utf-8") != text]
    for name in stale:
        print(f"{name} was stale" + ("; run ci/schemas.py" if "--check" in arguments else ": written again"))
        if "--check" not in arguments:
            (ROOT / name).write_text(texts[name], encoding="utf-8", newline="\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
