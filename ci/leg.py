"""Runs one step of a workflow; `ci/run-legs` runs the same steps on a machine without GitHub.

    python ci/leg.py wheel dist
    python ci/leg.py install build --extra models
    python ci/leg.py plan matrix.toml
    python ci/leg.py build matrix.toml matrix-run [--only CELL]
    python ci/leg.py install structure
    python ci/leg.py tests matrix-run/artifacts legs/windows
    python ci/leg.py verify matrix-run/artifacts legs/windows --level structure
    python ci/leg.py report matrix.toml matrix-run legs

$TRTCROSS is what pip installs as trtcross: a folder with its wheel, or a requirement (default: dist). `wheel` and
`install` need nothing but Python.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Isolated (-I), so that the installed package runs, not a checkout in this folder.
MODULE = [sys.executable, "-I", "-m", "toolchain"]
LEVELS = ("structure", "numbers")
TEST_TOOLS = ("pytest>=8", "pytest-timeout>=2.3", "hypothesis>=6.100")
TESTED = ("tests", "docs", "ci", "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")


def run(*command: str) -> None:
    """Runs a command; if it fails, ends this process with its exit code."""
    print("+", *command, flush=True)
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(code)


def trtcross(*arguments: str) -> None:
    run(*MODULE, *arguments)


def document(*arguments: str) -> dict[str, Any]:
    """Runs a verb with --json and returns its document; if it fails, ends this process with its exit code."""
    done = subprocess.run([*MODULE, *arguments, "--json", "-q"], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def pip(*arguments: str) -> None:
    run(sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *arguments)


def install_trtcross(extras: list[str]) -> None:
    # A permanent machine may have an older build of the same version, which pip would keep.
    run(sys.executable, "-m", "pip", "uninstall", "--yes", "--quiet", "trtcross")
    pip(requirement(extras))


def requirement(extras: list[str]) -> str:
    """Returns the requirement by which pip installs trtcross with extras."""
    source = os.environ.get("TRTCROSS", "dist")
    if Path(source).is_dir():
        wheels = sorted(Path(source).glob("trtcross-*.whl"))
        if len(wheels) != 1:
            sys.exit(f"there are {len(wheels)} wheels of trtcross in {source}, and not one")
        source = str(wheels[0])
    return source + (f"[{','.join(extras)}]" if extras else "")


def wheel(options: argparse.Namespace) -> None:
    run(sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-deps", "-w", options.folder, ".")


def install(options: argparse.Namespace) -> None:
    """Installs what a leg needs: the producer, only the base, or everything that the artifacts name."""
    if options.leg != "numbers":
        install_trtcross([*(["producer"] if options.leg == "build" else []), *options.extra])
        return
    install_trtcross(options.extra)
    for line in document("inspect", str(artifacts(options.artifacts)[0]))["manifest"]["install"]:
        words = line.split()
        if words[1:4] == ["-m", "pip", "install"]:
            pip(*(word for word in words[4:] if not word.startswith("trtcross-")))


def plan(options: argparse.Namespace) -> None:
    """Writes the cells to build as an output of the step, from which a workflow makes its matrix."""
    made = document("matrix", "plan", options.spec)
    line = "plan=" + json.dumps({"include": made["include"]}, separators=(",", ":"))
    append("GITHUB_OUTPUT", line)
    print(line)


def build(options: argparse.Namespace) -> None:
    only = [argument for cell in options.only for argument in ("--only", cell)]
    trtcross("matrix", "run", options.spec, "--out", options.folder, *only)


def tests(options: argparse.Namespace) -> None:
    """Runs this project's own tests that need no GPU, in a folder without the sources, so that they test the wheel."""
    pip(*TEST_TOOLS)
    results = Path(options.documents).absolute()
    results.mkdir(parents=True, exist_ok=True)
    os.environ["TRTCROSS_ARTIFACTS"] = str(artifacts(options.artifacts)[0].parent.absolute())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # on Windows, a file may still be open
        for name in TESTED:  # some tests read the documents
            copy = shutil.copytree if Path(name).is_dir() else shutil.copy
            copy(name, Path(folder) / name)
        os.chdir(folder)
        words = ["-p", "no:cacheprovider", "-q", "--junitxml", str(results / "tests.xml")]
        try:
            run(sys.executable, "-m", "pytest", *words, *(options.only or ("tests/unit", "tests/windows")))
        finally:
            os.chdir(results)


def verify(options: argparse.Namespace) -> None:
    """Verifies each artifact and checks it on this machine; with `numbers`, measures those of this platform too."""
    documents, numbers, failed = Path(options.documents), options.level == "numbers", False
    for artifact in artifacts(options.artifacts):
        if numbers and not ours(artifact):
            print(f"for another platform: {artifact.name}")
            continue
        failed |= keep(documents / f"{artifact.stem}.json", (0,), "verify", str(artifact), "--level", options.level)
        allowed = (0,) if numbers else (0, 3)  # 3: it cannot run on this machine, which need not have a GPU
        failed |= keep(documents / "preflight" / f"{artifact.stem}.json", allowed, "check", str(artifact))
        if numbers:
            failed |= keep(documents / f"{artifact.stem}.bench.json", (0,), "bench", str(artifact))
    sys.exit(1 if failed else 0)


def ours(artifact: Path) -> bool:
    """Whether an artifact is for this platform."""
    from toolchain import open_artifact
    from toolchain.targets import host_platform

    with open_artifact(artifact) as opened:
        return opened.manifest.target.platform.value == host_platform()


def keep(path: Path, allowed: tuple[int, ...], *arguments: str) -> bool:
    """Writes a verb's document to a file; returns whether its exit code is not allowed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        code = subprocess.run([*MODULE, *arguments, "--json", "-q"], stdout=file, check=False).returncode
    print(f"{'ok' if code in allowed else 'FAILED'} ({code})  {' '.join(arguments)}", flush=True)
    return code not in allowed


def report(options: argparse.Namespace) -> None:
    folder = Path(options.folder)
    found = (
        sorted(path for path in Path(options.legs).iterdir() if path.is_dir()) if Path(options.legs).is_dir() else []
    )
    results = [argument for path in found for argument in ("--results", f"{path.name}={path}")]
    pages = {kind: folder / name for kind, name in (("--junit", "junit.xml"), ("--markdown", "summary.md"))}
    arguments = [word for kind, path in pages.items() for word in (kind, str(path))]
    trtcross("matrix", "report", options.spec, "--out", str(folder), *results, *arguments)
    append("GITHUB_STEP_SUMMARY", pages["--markdown"].read_text(encoding="utf-8"))


def artifacts(folder: str) -> list[Path]:
    found = sorted(Path(folder).glob("*.pt2"))
    if not found:
        sys.exit(f"there are no artifacts in {folder}")
    return found


def append(variable: str, text: str) -> None:
    """Appends a line to a file of the workflow's step, which an environment variable names, if there is one."""
    if path := os.environ.get(variable):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs one step of a workflow.")
    steps = parser.add_subparsers(required=True)

    def step(function: Callable[[argparse.Namespace], None], *arguments: str) -> argparse.ArgumentParser:
        added = steps.add_parser(function.__name__)
        added.set_defaults(run=function)
        for argument in arguments:
            added.add_argument(argument)
        return added

    step(wheel, "folder")
    step(plan, "spec")
    step(build, "spec", "folder").add_argument("--only", action="append", default=[])
    step(tests, "artifacts", "documents").add_argument("--only", action="append", default=[], metavar="TESTS")
    step(verify, "artifacts", "documents").add_argument("--level", choices=LEVELS, default="structure")
    step(report, "spec", "folder", "legs")
    installing = step(install)
    installing.add_argument("leg", choices=("build", *LEVELS))
    installing.add_argument("--extra", action="append", default=[])
    installing.add_argument("--artifacts", default="matrix-run/artifacts")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
