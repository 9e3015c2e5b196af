"""Verifies every artifact of a folder on this machine, one JSON document each, for `trtcross matrix report --results`.

    python ci/verify_leg.py ARTIFACTS DOCUMENTS [--level structure]

Exit code 1: an artifact did not pass. Needs nothing but trtcross, on Linux or Windows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def verify(artifact: Path, documents: Path, level: str) -> bool:
    """Runs the command as a person would, and keeps what it prints."""
    command = [sys.executable, "-c", "from toolchain.cli import main; main()"]
    with (documents / f"{artifact.stem}.json").open("wb") as document:
        arguments = ["verify", str(artifact), "--level", level, "--json", "-q"]
        code = subprocess.run([*command, *arguments], stdout=document, check=False).returncode
    print(f"{'passed' if code == 0 else f'FAILED ({code})'}  {artifact.stem}", flush=True)
    return code == 0


def main() -> int:
    parser = argparse.ArgumentParser(description="verify every artifact of a folder")
    parser.add_argument("artifacts", type=Path)
    parser.add_argument("documents", type=Path)
    parser.add_argument("--level", default="structure")
    options = parser.parse_args()
    artifacts = sorted(options.artifacts.glob("*.pt2"))
    if not artifacts:
        sys.exit(f"there are no artifacts in {options.artifacts}")
    options.documents.mkdir(parents=True, exist_ok=True)
    results = [verify(artifact, options.documents, options.level) for artifact in artifacts]
    print(f"{sum(results)} of {len(results)} verified to {options.level} on {sys.platform}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
