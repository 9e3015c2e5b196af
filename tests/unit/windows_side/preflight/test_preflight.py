"""`check`: the library search path, WSL, and how little it imports."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.unit.handmade import MANIFEST, Handmade
from tests.unit.imports import imported_by
from toolchain.artifact import open_artifact
from toolchain.errors import IncompatibleError, UsageError
from toolchain.host import gpu_probe
from toolchain.host.requirements import Requirement, State
from toolchain.manifest.models import Manifest
from windows_side.preflight import requirements as preflight
from windows_side.preflight import search_path, wsl

LIBRARIES = {
    True: ("torch/lib/c10.dll", "torch/lib/torch_cpu.dll", "torch_tensorrt/lib/torchtrt.dll",
           "tensorrt_rtx_libs/tensorrt_rtx_1_6.dll"),
    False: ("torch/lib/libc10.so", "torch/lib/libtorch_cpu.so", "torch_tensorrt/lib/libtorchtrt.so",
            "tensorrt_rtx_libs/libtensorrt_rtx.so.1"),
}  # fmt: skip
VARIABLE = {True: "PATH", False: "LD_LIBRARY_PATH"}


def manifest(target_platform: str = "windows-x86_64") -> Manifest:
    return Manifest.model_validate({**MANIFEST, "target": {**MANIFEST["target"], "platform": target_platform}})


# Paths of Windows have colons, which would separate them on Linux.
@pytest.fixture(params=[True] if os.name == "nt" else [True, False], ids=lambda windows: ["linux", "windows"][windows])
def windows(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A machine of this system with the packages installed in ``tmp_path / "site"`` and an empty search path."""
    system: bool = request.param
    for library in LIBRARIES[system]:
        path = tmp_path / "site" / library
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")

    def folder(package: str) -> Path | None:
        found = tmp_path / "site" / package
        return found if found.is_dir() else None

    monkeypatch.setattr(search_path, "package_folder", folder)
    monkeypatch.setattr(search_path, "WINDOWS", system)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python" / "python.exe"))
    monkeypatch.setenv("SYSTEMROOT", str(tmp_path / "Windows"))
    monkeypatch.setenv(VARIABLE[system], "")
    return system


def requirement() -> Requirement:
    return search_path.search_path_requirement(manifest(), "pip install it")


def test_each_library_found_once(windows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that do not exist, that have no library, or that are the packages' own, are no second copy."""
    separator = ";" if windows else ":"
    own = [str(tmp_path / "site" / Path(library).parent) for library in LIBRARIES[windows]]
    monkeypatch.setenv(VARIABLE[windows], separator.join([*own, "", str(tmp_path / "none"), str(tmp_path)]))
    assert requirement().state is State.MET


@pytest.mark.parametrize("number", range(4))
def test_a_second_copy_is_named(windows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    library = Path(LIBRARIES[windows][number]).name
    other = tmp_path / "other sdk"
    other.mkdir()
    (other / library).write_bytes(b"y")
    monkeypatch.setenv(VARIABLE[windows], (";" if windows else ":").join([str(tmp_path), str(other)]))
    found = requirement()
    assert found.state is State.NOT_MET
    assert found.found == f"a second copy: {other / library}"
    assert found.remedy == f"before Python starts, take off {VARIABLE[windows]}: {other}"


def test_another_release_of_tensorrt_is_a_second_copy(
    windows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ("tensorrt_rtx_1_5.dll" if windows else "libtensorrt_rtx.so.2")).write_bytes(b"y")
    (tmp_path / ("nvinfer_10.dll" if windows else "libnvinfer.so.10")).write_bytes(b"of no concern to this artifact")
    monkeypatch.setenv(VARIABLE[windows], str(tmp_path))
    found = requirement()
    assert found.state is State.NOT_MET
    assert ("tensorrt_rtx_1_5.dll" if windows else "libtensorrt_rtx.so.2") in found.found
    assert "nvinfer" not in found.found


def test_a_library_that_is_gone(windows: bool, tmp_path: Path) -> None:
    library = LIBRARIES[windows][2]
    (tmp_path / "site" / library).unlink()
    found = requirement()
    assert (found.state, found.remedy) == (State.NOT_MET, "again, with --force-reinstall: pip install it")
    assert Path(library).name in found.found


def test_nothing_is_known_of_what_is_not_installed(windows: bool, tmp_path: Path) -> None:
    (tmp_path / "site" / "torch_tensorrt").rename(tmp_path / "away")
    found = requirement()
    assert (found.state, found.found) == (State.UNKNOWN, "not installed: torch_tensorrt")
    assert found.remedy == "pip install it"


@pytest.mark.parametrize(
    ("release", "distribution", "version"),
    [
        ("6.1.0-18-amd64", None, None),
        ("4.4.0-19041-Microsoft", "Debian", 1),
        ("5.15.167.4-microsoft-standard-WSL2", "Debian", 2),
        ("5.15.167.4-microsoft-standard-WSL2", None, 2),
        ("6.9.0-my-own-kernel", "Debian", 2),
    ],
)
def test_wsl_and_what_follows(
    monkeypatch: pytest.MonkeyPatch, release: str, distribution: str | None, version: int | None
) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)
    monkeypatch.delenv("WSL_DISTRO_NAME", raising=False)
    if distribution:
        monkeypatch.setenv("WSL_DISTRO_NAME", distribution)
    for_windows, for_linux = (wsl.wsl_requirement(manifest(name)) for name in ("windows-x86_64", "linux-x86_64"))
    if version is None:
        assert (for_windows.state, for_linux.state) == (State.MET, State.MET)
        return
    assert for_windows.state is State.NOT_MET and "PowerShell" in (for_windows.remedy or "")
    assert f"WSL {version}" in for_windows.found
    assert for_linux.state is (State.MET if version == 2 else State.NOT_MET)
    assert version == 2 or "--set-version" in (for_linux.remedy or "")


def answering(monkeypatch: pytest.MonkeyPatch, changes: dict[str, State]) -> None:
    """Makes a machine that meets every requirement except ``changes``."""
    real = preflight._requirements

    def requirements(*arguments: Any) -> Any:
        for item in real(*arguments):
            state = changes.get(item.name, State.MET)
            yield Requirement(item.name, state, item.needed, item.found, item.remedy)

    monkeypatch.setattr(preflight, "_requirements", requirements)
    monkeypatch.setattr(preflight, "host_platform", lambda: "windows-x86_64")


def test_a_risk_is_a_warning_to_load_and_the_rest_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_artifact(Handmade().write(tmp_path / "a.pt2")) as artifact:
        answering(monkeypatch, {"dll-search-path": State.NOT_MET, "torch": State.UNKNOWN})
        assert {item.name for item in preflight.require(artifact)} == {"dll-search-path", "torch"}
        answering(monkeypatch, {"disk": State.NOT_MET, "dll-search-path": State.NOT_MET})
        with pytest.raises(IncompatibleError, match="disk"):
            preflight.require(artifact)


def test_the_document_knows_every_requirement_that_check_can_name(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "fix" / "check.md").read_text("utf-8")
    with open_artifact(Handmade().write(tmp_path / "a.pt2")) as artifact:
        names = {item.name for item in preflight.check(artifact)} | {"visual-c++", "wsl"}
    assert {name for name in names if f"| `{name}` |" not in text} == set()


def test_check_imports_nothing_heavy_and_the_probe_even_less(tmp_path: Path) -> None:
    path = Handmade().write(tmp_path / "a.pt2")
    code = (
        "import sys; from toolchain import open_artifact; from windows_side import check\n"
        "with open_artifact(sys.argv[1]) as artifact: print(check(artifact))"
    )
    assert not imported_by(code, str(path)) & {"torch", "numpy", "sympy", "pynvml", "jinja2", "tensorrt_rtx"}
    assert not imported_by("import toolchain.host.nvml") & {"pydantic", "packaging", "click"}


def test_the_probe_takes_no_code_from_the_folder_that_it_is_run_in(tmp_path: Path) -> None:
    for name in ("pynvml", "json", "windows_side"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken from the current folder')")
    command = [sys.executable, "-c", gpu_probe._PROGRAM]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"driver", "gpus", "problem", "known"}


def test_check_takes_a_path_or_an_open_artifact(tmp_path: Path) -> None:
    path = Handmade().write(tmp_path / "model.pt2")
    with open_artifact(path) as artifact:
        expected = [item.name for item in preflight.check(artifact)]
    assert expected
    assert (
        [item.name for item in preflight.check(path)] == [item.name for item in preflight.check(str(path))] == expected
    )
    with pytest.raises(UsageError, match="cannot be opened"):
        preflight.check(tmp_path / "none.pt2")
