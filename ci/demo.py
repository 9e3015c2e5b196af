"""`make demo`: compiles two trained models for Windows, inspects and checks them and, with a GPU, runs them here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MODELS = ("efficientnet_lite0", "minilm")
NOT_HERE = 3


def trtcross(*arguments: str, allowed: tuple[int, ...] = (0,)) -> int:
    """Shows a command as a person would type it, and runs it; an exit code that is not allowed ends the demo."""
    print(f"\n$ trtcross {' '.join(arguments)}", flush=True)
    code = subprocess.run([str(Path(sys.executable).with_name("trtcross")), *arguments], check=False).returncode
    if code not in allowed:
        sys.exit(f"the demo stops here: exit code {code} was not expected")
    return code


def has_gpu() -> bool:
    probe = subprocess.run([sys.executable, "-m", "toolchain.host.gpu_probe"], capture_output=True, check=False)
    return probe.returncode == 0 and bool(json.loads(probe.stdout)["gpus"])


def run_here(artifact: Path) -> None:
    """Runs the same engine bytes on this machine's own GPU and compares the outputs with golden I/O."""
    local = artifact.with_name(f"{artifact.stem}-linux.pt2")
    trtcross("convert", str(artifact), "--target", "linux-x86_64", "-o", str(local))
    trtcross("verify", str(local), "--level", "numbers", "--allow-unlisted-gpu")


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    artifacts = [folder / f"{name}.pt2" for name in MODELS]
    for name, artifact in zip(MODELS, artifacts, strict=True):
        trtcross("build", f"examples.models:{name}", "-o", str(artifact), "--target", "windows-x86_64")
    for artifact in artifacts:
        trtcross("inspect", str(artifact), "--digests")
        trtcross("verify", str(artifact), "--level", "structure")
    for artifact in artifacts:
        trtcross("check", str(artifact), allowed=(0, NOT_HERE))
        print("(expected: the artifact is for Windows, and this is the machine that builds it)")
    if has_gpu():
        for artifact in artifacts:
            run_here(artifact)
    else:
        print("\nno GPU here: the artifacts were built, and checked as far as a file can be, but not run")
    print("\nmade for Windows, by the real TensorRT-RTX builder:")
    for artifact in artifacts:
        print(f"  {artifact.resolve()}  ({artifact.stat().st_size / 2**20:.1f} MiB)")
    print("on a Windows machine with an NVIDIA RTX GPU: copy one over with dist/*.whl (make wheel), then")
    print("  set it up with the lines that `trtcross inspect` printed above")
    print(f"  trtcross check {artifacts[0].name}")
    print(f"  trtcross verify {artifacts[0].name} --level numbers")


if __name__ == "__main__":
    main()
