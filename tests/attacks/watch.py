"""Opens hostile files in a process of its own, and reports each result: ``python -m tests.attacks.watch FOLDER``.

The command line runs as users run it, but inside this process, so that an audit hook can record every file that is
opened for writing, every process that is started, every module that is imported, and every name that a pickle looks up.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from toolchain.cli.main import cli

FORBIDDEN = {
    *("subprocess.Popen", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.startfile"),
    *("pickle.find_class", "exec", "import", "ctypes.dlopen", "socket.connect"),
    *("os.remove", "os.rename", "os.mkdir", "os.truncate", "os.chmod"),
}

SLOW = 1.0

seen: list[str] = []
watching = False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not watching:
        return
    if event in FORBIDDEN:
        seen.append(f"{event}{arguments!r}"[:200])
    elif event == "open" and _writes(arguments):
        seen.append(f"open{arguments!r}"[:200])


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def verb(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Runs a verb, and returns its exit code and its JSON document."""
    global watching
    out = io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            watching = True
            cli([*arguments, "--json"], standalone_mode=False)
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            watching = False
    return code, json.loads(out.getvalue())


def forget_peak() -> None:
    """Resets the memory peak, so that each file is measured by itself."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Returns the peak of this process's memory since ``forget_peak`` in bytes; 0 where the system has no figure."""
    status = Path("/proc/self/status")  # not getrusage, which includes the parent's peak
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def main(folder: Path) -> None:
    for arguments in (("verify", "--level", "structure"), ("inspect",)):
        for good in ("good", "good_foreign"):
            code, document = verb(*arguments, str(folder / good))  # imports what there is to import
            assert code == 0, document
        for no_artifact in (folder / "none", Path(__file__), folder):
            verb(*arguments, str(no_artifact))
    results = {}
    sys.addaudithook(_watch)
    for path in sorted(folder.iterdir()):
        forget_peak()
        seen.clear()
        # Other load on the same cores lengthens even this process's CPU time, so the best of three counts.
        seconds = 60.0
        for _ in range(3):
            start = time.process_time()
            code, document = verb("verify", "--level", "structure", str(path))
            seconds = min(time.process_time() - start, seconds)
            if seconds < SLOW / 2:
                break
        inspected, _ = verb("inspect", str(path))
        error = document.get("error") or {}
        results[path.name] = {
            "code": code,
            "kind": error.get("kind"),
            "text": f"{error.get('problem')} {error.get('remedy')}",
            "inspected": inspected,
            "seconds": seconds,
            "did": list(seen),
            "peak": peak_memory(),
        }
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
