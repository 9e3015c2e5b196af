"""PowerShell completes our commands, and parses the script for users with a GPU. Not run in a real PowerShell yet."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "ci" / "windows-gpu.ps1"


@pytest.fixture(scope="module", params=["powershell", "pwsh"])
def powershell(request: pytest.FixtureRequest) -> str:
    """A PowerShell that works; Wine's does not."""
    found = shutil.which(request.param)
    if found is None or said(found, "1 + 1").strip() != "2":
        pytest.skip(f"there is no {request.param} here")
    return found


def said(program: str, line: str) -> str:
    command = [program, "-NoProfile", "-NonInteractive", "-Command", line]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120).stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [("trtcross ver", "verify"), ("trtcross verify --le", "--level"), ("trtcross verify --level str", "structure")],
)
def test_it_completes_verbs_options_and_values(powershell: str, line: str, offered: str) -> None:
    complete = f"[System.Management.Automation.CommandCompletion]::CompleteInput('{line}', {len(line)}, $null)"
    text = said(
        powershell,
        "trtcross completion powershell | Out-String | Invoke-Expression; "
        f"({complete}).CompletionMatches | ForEach-Object {{ $_.CompletionText }}",
    )
    assert offered in text.split()


def test_it_can_read_the_script_for_people_with_a_gpu(powershell: str) -> None:
    if not SCRIPT.exists():
        pytest.skip("the script is not here")
    parser = "[System.Management.Automation.Language.Parser]::ParseFile"
    assert (
        said(powershell, f"$e = $null; {parser}('{SCRIPT}', [ref]$null, [ref]$e) | Out-Null; $e.Count").strip() == "0"
    )
