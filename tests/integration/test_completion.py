"""Tab completes verbs, options, their values and files in real shells."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Trtcross

START = {
    "bash": ("bash --norc --noprofile -i", 'PS1="> "; eval "$(trtcross completion bash)"'),
    "zsh": ("zsh -f -i", 'PS1="> "; autoload -U compinit; compinit -u -D; eval "$(trtcross completion zsh)"'),
    "fish": ("fish --no-config -i", "function fish_prompt; echo '> '; end; trtcross completion fish | source"),
}
TYPED = {
    "trtcross docto": "doctor",
    "trtcross build only_her": "only_here.pt2",
    "trtcross inspect only_her": "only_here.pt2",
    "trtcross build m.pt2 --out only_her": "only_here.pt2",
    "trtcross build m.pt2 --target linux": "linux-x86_64",
    "trtcross build m.pt2 --backend tensorrt-": "tensorrt-rtx",
    "trtcross build m.pt2 --gpu sm_7": "sm_75",
    "trtcross build m.pt2 --require-f": "--require-full-coverage",
    "trtcross convert m.pt2 --target windows": "windows-x86_64",
    "trtcross store pru": "prune",
    "trtcross matrix repo": "report",
}
TIMEOUT = 60


class Shell:
    """A shell at a terminal."""

    def __init__(self, name: str, folder: Path) -> None:
        command, start = START[name]
        environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "TERM": "xterm"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._pid, self._terminal = pty.fork()
        if not self._pid:
            os.chdir(folder)
            os.execvpe(command.split()[0], command.split(), environment | {"HOME": str(folder)})
        self.type(f"{start}; echo rea''dy\n", until="ready")

    def type(self, text: str, *, until: str) -> str:
        """Types a text, and reads the output until it has another text."""
        os.write(self._terminal, text.encode())
        seen, end = "", time.monotonic() + TIMEOUT
        while until not in seen and time.monotonic() < end:
            if select.select([self._terminal], [], [], 0.2)[0]:
                seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|[\r\x07]", "", os.read(self._terminal, 4096).decode())
        return seen

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._terminal)


@pytest.fixture(params=START)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    if not shutil.which(request.param):
        pytest.skip(f"NO {request.param.upper()} HERE: its completion was not tried")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "trtcross"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from toolchain.cli.main import main; main()" "$@"\n')
    script.chmod(0o755)
    (tmp_path / "only_here.pt2").write_bytes(b"")
    shell = Shell(request.param, tmp_path)
    yield shell
    shell.close()


def test_tab_completes(shell: Shell) -> None:
    for typed, wanted in TYPED.items():
        seen = shell.type(f"{typed}\t", until=wanted)
        assert wanted in seen, (typed, seen)
        shell.type("\x15\x03\n", until="> ")  # the line is left


def test_powershell_gets_values_and_completes_files_itself(tmp_path: Path) -> None:
    def offered(*words: str, incomplete: str) -> list[list[str]]:
        environment = {
            "_TRTCROSS_COMPLETE": "powershell_complete",
            "COMP_WORDS": "\n".join(["trtcross", *words, *([incomplete] if incomplete else [])]),
            "COMP_INCOMPLETE": incomplete,
        }
        code = "from toolchain.cli.main import main; main()"
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
        return [line.split("\t") for line in result.stdout.splitlines() if line]

    assert offered(incomplete="docto") == [
        ["doctor", "Show what this machine can build, what it can run, and what is missing."]
    ]
    assert ["build", "Compile a model into an artifact."] in offered(incomplete="")
    assert offered("build", "m.pt2", "--backend", incomplete="tensorrt-") == [["tensorrt-rtx", "tensorrt-rtx"]]
    assert not offered("inspect", incomplete="only_her")


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish", "powershell"])
def test_the_script_is_printed(shell_name: str, warm_trtcross: Trtcross) -> None:
    result = warm_trtcross("completion", shell_name)
    assert result.returncode == 0 and "_TRTCROSS_COMPLETE" in result.stdout and not result.stderr


def test_an_unknown_shell_is_a_usage_error(warm_trtcross: Trtcross) -> None:
    result = warm_trtcross("completion", "tcsh")
    assert result.returncode == 2 and "powershell" in result.stderr
