"""The result file of a user with a Windows GPU is written whatever fails, and becomes a row of the page's table."""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.unit.handmade import Handmade

if not (ROOT / "ci" / "windows_gpu.py").exists():
    pytest.skip("the scripts are not here", allow_module_level=True)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "ci" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLE, DRIVER = script("windows_gpu_table"), script("windows_gpu")
PAGE = (ROOT / "docs" / "verify" / "where.md").read_text(encoding="utf-8")


def step(name: str, code: int = 0, **facts: Any) -> dict[str, Any]:
    return {"name": name, "artifact": "minilm.pt2", "code": code, "seconds": 1.5, "facts": facts, "tail": ""}


RESULT: dict[str, Any] = {
    "version": 1,
    "date": "2026-11-26T22:00:00+00:00",
    "machine": {"os": "Windows-11-10.0.26100", "GPU": "NVIDIA GeForce RTX 4090 (sm_89, 24.0 GiB)", "driver": "581.15"},
    "steps": [
        step("verify torch", relative_l2=1.2e-4),
        step("verify torch", relative_l2=3.4e-4),
        step("verify tensorrt", code=3, error="numpy | is missing <b>"),
        step("bench", median_ms=0.41),
    ],
}


def test_a_result_is_one_row_of_the_page() -> None:
    line = TABLE.row(TABLE.checked(RESULT))
    verified = ("2 of 2 right, relative error up to 3.4e-04", "0 of 1 right", "not tried")
    for words in ("RTX 4090", "driver 581.15", *verified, "minilm.pt2 0.410 ms", "2026-11-26"):
        assert words.replace("_", "\\_") in line, line
    assert "numpy \\| is missing \\<b\\>" in line
    text = TABLE.taken(PAGE, line)
    assert text.count(line) == 1 and "none yet: never run" not in text
    assert text.replace(line, "").startswith(PAGE[: PAGE.index(TABLE.BEGIN)])


def test_the_same_machine_has_one_row_and_another_its_own() -> None:
    once = TABLE.taken(PAGE, TABLE.row(RESULT))
    later = copy.deepcopy(RESULT) | {"date": "2026-12-01T00:00:00+00:00"}
    assert TABLE.taken(once, TABLE.row(later)).count("RTX 4090") == 1
    other = copy.deepcopy(RESULT)
    other["machine"]["GPU"] = "NVIDIA RTX A4000"
    both = TABLE.taken(once, TABLE.row(other))
    assert "RTX 4090" in both and "A4000" in both


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"version": 2}, "version"),
        ({"date": "yesterday"}, "date"),
        ({"machine": {"GPU": 1}}, "machine"),
        ({"steps": {}}, "steps"),
        ({"steps": [{**step("bench"), "code": "0"}]}, "steps[0].code"),
        ({"steps": [step("bench", median_ms="<b>")]}, "steps[0].facts.median_ms"),
    ],
)
def test_a_file_of_something_else_is_refused(change: dict[str, Any], where: str) -> None:
    with pytest.raises(TABLE.ResultError, match=where.replace("[", r"\[")):
        TABLE.checked(RESULT | change)


def test_a_page_without_the_place_is_refused_and_left_alone(tmp_path: Path) -> None:
    page, result = tmp_path / "where.md", tmp_path / "r.json"
    page.write_text("no table", encoding="utf-8")
    result.write_text(json.dumps(RESULT), encoding="utf-8")
    command = [sys.executable, ROOT / "ci" / "windows_gpu_table.py", result, page]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "has no lines" in done.stderr and page.read_text() == "no table"


def test_what_an_install_line_installs() -> None:
    line = r".venv\Scripts\python -m pip install torch==2.14.1 --index-url https://download.pytorch.org/whl/cu130"
    assert DRIVER.install_words(line) == ["torch==2.14.1", "--index-url", "https://download.pytorch.org/whl/cu130"]
    assert DRIVER.install_words('python -m pip install "onnxruntime>=1.23"') == ["onnxruntime>=1.23"]
    assert DRIVER.install_words("py -3.11 -m venv .venv") is None
    assert DRIVER.install_words("python -m pip install trtcross-0.1.0-py3-none-any.whl nvidia-ml-py") == [
        "nvidia-ml-py"
    ]


def test_the_driver_writes_its_file_whatever_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs all steps with real commands, except pip's. The artifact is handmade, and there is no GPU here."""
    Handmade().write(tmp_path / "a.pt2")
    (tmp_path / "trtcross-0.1.0-py3-none-any.whl").touch()
    monkeypatch.setattr(DRIVER, "pip", lambda *words: [sys.executable, "-c", f"raise SystemExit({str(tmp_path)!r})"])
    monkeypatch.setattr(DRIVER, "RUNTIMES", ("torch",))
    monkeypatch.setattr(sys, "argv", ["windows_gpu.py", str(tmp_path), str(tmp_path / "r.json")])
    assert DRIVER.main() == 1
    document = TABLE.checked(json.loads((tmp_path / "r.json").read_text(encoding="utf-8")))
    names = [item["name"] for item in document["steps"]]
    assert names[0] == "install trtcross" and {"inspect", "check", "verify torch", "bench"} <= set(names)
    verified = next(item for item in document["steps"] if item["name"] == "verify torch")
    assert verified["code"] in (3, 8) and verified["facts"]["error"]
    assert document["steps"][0]["tail"].strip() == "FOLDER" and str(tmp_path) not in json.dumps(document)
    assert "platform" in document["machine"]
    assert TABLE.row(document)


def test_no_folder_is_named_wherever_the_result_is_and_wherever_a_text_is_cut(tmp_path: Path) -> None:
    """Only the last 2,000 characters of a text are kept; cut first, it would still hold a part of the folder's name."""
    folder = tmp_path / "alice" / "models"
    record = DRIVER.Record(tmp_path / "r.json", folder)
    code = f"import sys; sys.stderr.write({str(folder)!r} + 'x' * {DRIVER.TAIL - 6}); raise SystemExit(1)"
    record.step("verify", "a.pt2", [sys.executable, "-c", code])
    text = (tmp_path / "r.json").read_text(encoding="utf-8")
    assert '"FOLDERx' in text and "models" not in text


def test_a_folder_of_windows_in_a_document_is_not_named(tmp_path: Path) -> None:
    record = DRIVER.Record(tmp_path / "r.json", r"C:\alice")
    document = json.dumps({"error": {"problem": r"C:\alice\a.pt2 is damaged"}})
    record.step("verify", "a.pt2", [sys.executable, "-c", f"print({document!r})"])
    [step] = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["steps"]
    assert step["facts"]["error"] == r"FOLDER\a.pt2 is damaged"


def test_the_script_for_powershell_names_what_is_there() -> None:
    text = (ROOT / "ci" / "windows-gpu.ps1").read_text(encoding="utf-8")
    assert "windows_gpu.py" in text and "windows-gpu.json" in text
    assert text.isascii()  # Windows PowerShell 5 reads a file without a mark as the system's code page
    assert all(text.count(one) == text.count(other) for one, other in ("{}", "()", "[]"))
