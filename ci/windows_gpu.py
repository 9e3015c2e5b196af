"""Installs trtcross, tries each artifact with each runtime, and records the results, for ci/windows-gpu.ps1.

    python windows_gpu.py FOLDER RESULT.json

It runs in a virtual environment and needs nothing but Python. FOLDER holds the wheel of trtcross and artifacts. A step
that fails does not stop the next one. The result is written after each step, so that a crash in a driver leaves the
earlier results; ci/windows_gpu_table.py reads it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

VERSION = 1
RUNTIMES = ("torch", "tensorrt", "onnxruntime")
CALLS = "100"
TAIL = 2000
LIMIT = 900  # seconds of one step


class Record:
    """The result file, in which placeholders stand for this machine's folders, whose names may tell its user's."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._places = {str(folder): "FOLDER", str(path.parent): "FOLDER", str(Path.home()): "HOME"}
        self._document: dict[str, Any] = {
            "version": VERSION,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": {"os": platform.platform(), "python": platform.python_version()},
            "steps": [],
        }

    def machine(self, **facts: str) -> None:
        self._document["machine"].update(facts)
        self._write()

    def step(self, name: str, artifact: str, command: list[str]) -> dict[str, Any]:
        """Runs a command, records its result, and returns the JSON document that it printed, or an empty one."""
        print(f"[{name}] {artifact}", flush=True)
        start = time.monotonic()
        code, out, error = run(command)
        # First the placeholders, then the cut: a cut could leave a part of a folder's name.
        out, error = self._without_places(out), self._without_places(error)
        document = parsed(out)
        self._document["steps"].append(
            {
                "name": name,
                "artifact": artifact,
                "code": code,
                "seconds": round(time.monotonic() - start, 2),
                "facts": facts_of(document),
                "tail": "" if code == 0 else (error or out)[-TAIL:],
            }
        )
        self._write()
        print(f"  {'ok' if code == 0 else f'FAILED ({code})'}", flush=True)
        return document

    def _without_places(self, text: str) -> str:
        for place, word in self._places.items():
            for spelling in (place, json.dumps(place)[1:-1]):  # as it is, and in a JSON document
                text = text.replace(spelling, word)
        return text

    @property
    def failed(self) -> bool:
        return any(step["code"] for step in self._document["steps"])

    def _write(self) -> None:
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self._document, indent=1), encoding="utf-8")
        part.replace(self._path)


def run(command: list[str]) -> tuple[int, str, str]:
    """Returns a command's exit code, stdout and stderr; a command that takes too long is killed, with code 124."""
    environment = {**os.environ, "PYTHONUTF8": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"not finished after {LIMIT} s"
    return done.returncode, done.stdout, done.stderr


def parsed(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def facts_of(document: dict[str, Any]) -> dict[str, Any]:
    """Returns the facts of a verb's document that the table needs."""
    facts: dict[str, Any] = {}
    if error := document.get("error"):
        facts["error"] = str(error.get("problem"))[:500]
    if levels := document.get("levels"):
        facts["passed"] = [level["level"] for level in levels if level["passed"]]
        outputs = [output for level in levels for output in level.get("details", {}).get("outputs", ())]
        errors = [output["relative_l2"] for output in outputs if output.get("relative_l2") is not None]
        if errors:
            facts["relative_l2"] = max(errors)
    if latency := document.get("latency"):
        facts["median_ms"] = latency["median"]
    for name, first in (document.get("first_call") or {}).items():
        facts[name] = {part: round(first[part], 3) for part in ("imports", "load", "first_call")}
    return facts


def trtcross(*arguments: str) -> list[str]:
    return [sys.executable, "-I", "-m", "toolchain", *arguments, "--json", "-q"]


def pip(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pip", "install", *arguments]


def install_words(line: str) -> list[str] | None:
    """Returns what a line such as ``.venv\\Scripts\\python -m pip install A B`` installs, except trtcross itself."""
    words = line.replace('"', "").split()
    if words[1:4] != ["-m", "pip", "install"]:
        return None
    return [word for word in words[4:] if not word.startswith("trtcross-")]


def install(record: Record, folder: Path, artifacts: list[Path]) -> None:
    (wheel,) = sorted(folder.glob("trtcross-*.whl"))[-1:]
    record.step("install trtcross", wheel.name, pip(str(wheel)))
    document = record.step("inspect", artifacts[0].name, trtcross("inspect", str(artifacts[0])))
    for line in document.get("manifest", {}).get("install", []):
        if words := install_words(line):
            record.step("install", " ".join(words)[:120], pip(*words))


def look(record: Record, artifact: Path) -> None:
    """Records the facts about this machine, and prints the requirements that it does not meet."""
    document = record.step("check", artifact.name, trtcross("check", str(artifact)))
    _, out, _ = run(trtcross("verify", str(artifact), "--level", "structure", "--html", str(artifact) + ".html"))
    record.machine(**{name: str(value) for name, value in parsed(out).get("machine", {}).items()})
    for item in document.get("requirements", ()):
        if item["state"] != "met":
            print(f"  not met: {item['name']}: needs {item['needed']}; here: {item['found']}", flush=True)


def complete(record: Record, artifact: Path, runtime: str) -> None:
    """Installs what ``check`` reports as missing for a runtime, if pip can."""
    _, out, _ = run(trtcross("check", str(artifact), "--runtime", runtime))
    for item in parsed(out).get("requirements", ()):
        remedy = str(item.get("remedy") or "")
        words = install_words(remedy) if item["state"] != "met" else None
        if words:
            record.step("install", " ".join(words)[:120], pip(*words))


def main() -> int:
    folder, result = Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute()
    record = Record(result, folder)
    artifacts = sorted(folder.glob("*.pt2"), key=lambda path: path.stat().st_size)
    if not artifacts:
        sys.exit(f"there are no artifacts in {folder}")
    install(record, folder, artifacts)
    look(record, artifacts[0])
    for runtime in RUNTIMES:
        complete(record, artifacts[0], runtime)
        for artifact in artifacts:
            command = ("verify", str(artifact), "--level", "numbers", "--runtime", runtime)
            record.step(f"verify {runtime}", artifact.name, trtcross(*command))
    for artifact in artifacts:
        record.step("bench", artifact.name, trtcross("bench", str(artifact), "--calls", CALLS))
        record.step(
            "bench cuda-graphs",
            artifact.name,
            trtcross("bench", str(artifact), "--calls", CALLS, "--cuda-graphs", "--no-first-call"),
        )
    return 1 if record.failed else 0


if __name__ == "__main__":
    sys.exit(main())
