"""`select`: which artifact of a folder is the best for this machine, and why each of the others is not."""

from __future__ import annotations

import json
import os
import shutil
import struct
from datetime import datetime, timedelta, timezone
from functools import cmp_to_key
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.handmade import Handmade, plan
from toolchain.cli.main import cli
from toolchain.host.gpu_probe import Gpu, Gpus
from toolchain.host.requirements import Requirement, State
from toolchain.targets import ComputeCapability, host_platform
from windows_side.preflight import requirements as preflight
from windows_side.preflight import runtimes
from windows_side.preflight import selection as selecting
from windows_side.preflight.requirements import Runtime
from windows_side.preflight.selection import CRITERIA, Candidate, GpuMatch, gpu_match, ordered, reasons

ADA, HOPPER = ComputeCapability(8, 9), ComputeCapability(9, 0)
EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)
# The bits of a plan's header: see toolchain/engine/plan_header.py.
SM80, SM86, SM89, DEFAULT = 0x02, 0x04, 0x08, 0x7E


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an Ada GPU that meets every requirement of the handmade artifacts."""
    gpus = Gpus("581.15", (Gpu(0, "NVIDIA GeForce RTX 4090", ADA, 20 * 2**30, 24 * 2**30),))
    versions = {"torch-tensorrt-rtx": "2.14.0", "tensorrt-rtx": "1.6.1.120"}
    met = Requirement("dll-search-path", State.MET, "each found once", "each found once")
    for module in (preflight, selecting):
        monkeypatch.setattr(module, "probe_gpus", lambda: gpus)
    monkeypatch.setattr(preflight, "host_platform", lambda: "windows-x86_64")
    for module in (preflight, runtimes):
        monkeypatch.setattr(module, "version_of", versions.get)
        monkeypatch.setattr(module, "torch_version", lambda: "2.14.1+cu130")
    monkeypatch.setattr(preflight, "torch_cuda", lambda: "13.0")
    monkeypatch.setattr(preflight.search_path, "search_path_requirement", lambda *_, **__: met)


def artifact(path: Path, *, mask: int = DEFAULT, **changes: Any) -> Path:
    """Writes an artifact whose header and manifest list GPUs, and whose manifest has these changes.

    Args:
        mask: the bits of the GPUs in the plan's header.
        changes: members of the manifest, by name.
    """
    header = bytearray(plan(b"engine"))
    struct.pack_into("<I", header, 32, mask)
    names = {0x02: "sm_80", 0x04: "sm_86", 0x08: "sm_89", 0x10: "sm_120", 0x20: "sm_121"}

    def edit(document: dict[str, Any]) -> None:
        document["target"]["compute_capabilities"] = [name for bit, name in names.items() if mask & bit]
        document["engines"][0]["plan"]["capability_mask"] = mask
        for place, value in changes.items():
            *parents, last = place.split("__")
            part = document
            for parent in parents:
                part = part[parent]
            part[last] = value

    return Handmade(engines=[bytes(header)], edit_manifest=edit).write(path)


def select(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["select", *map(str, arguments)])


def found(folder: Path, *arguments: object, code: int = 0) -> dict[str, dict[str, Any]]:
    result = select(folder, "--json", *arguments)
    assert result.exit_code == code, result.output
    document = json.loads(result.stdout)
    rows = {Path(row["artifact"]).name: row for row in document["artifacts"]}
    assert len(rows) == len(document["artifacts"])
    assert (document["best"] is None) == (code != 0)
    assert document["best"] is None or rows[Path(document["best"]).name]["outcome"] == "best"
    return rows


@pytest.mark.usefixtures("machine")
def test_each_loser_has_its_reason(tmp_path: Path) -> None:
    half = {"coverage__operators": 4, "coverage__in_engines": 2}
    artifact(tmp_path / "best.pt2", mask=SM89)
    artifact(tmp_path / "half.pt2", mask=SM89, **half)
    artifact(tmp_path / "old.pt2", mask=SM89, created="2026-11-22T00:00:00Z")
    artifact(tmp_path / "many.pt2")
    artifact(tmp_path / "twin.pt2", mask=SM89)
    artifact(tmp_path / "linux.pt2", target__platform="linux-x86_64")
    artifact(tmp_path / "ampere.pt2", mask=SM86)
    (tmp_path / "notes.txt").write_text("not looked at")
    rows = found(tmp_path)
    reason = {name: row["reasons"] for name, row in rows.items()}
    assert "notes.txt" not in rows and reason["best.pt2"] == []
    assert "coverage: 50.0%" in reason["half.pt2"][0] and "the best: 100.0%" in reason["half.pt2"][0]
    assert reason["old.pt2"][0].startswith("created: 2026-11-22")
    assert "built for 5 kinds of GPUs; the best: built for 1" in reason["many.pt2"][0]
    assert "its name comes later" in reason["twin.pt2"][0]
    assert reason["linux.pt2"] == ["platform not met: needs linux-x86_64; here: windows-x86_64"]
    assert reason["ampere.pt2"][0].startswith("gpu not met: needs a GPU of sm_86; here: NVIDIA GeForce RTX 4090")
    assert [row["outcome"] for row in rows.values()].count("best") == 1
    text = select(tmp_path).stdout
    assert text.startswith(f"best: {tmp_path / 'best.pt2'}\n")
    assert all(f"  {name}: {words}" in text for name, lines in reason.items() for words in lines)
    assert select(tmp_path, "-q").stdout == f"{tmp_path / 'best.pt2'}\n"


@pytest.mark.usefixtures("machine")
def test_a_reason_that_all_have_is_printed_once(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        artifact(tmp_path / f"{name}.pt2", target__platform="linux-x86_64")
    artifact(tmp_path / "d.pt2", mask=SM86, target__platform="linux-x86_64")
    text = select(tmp_path).output
    assert text.count("platform not met") == 1 and "  all 4: platform not met: needs linux-x86_64" in text
    assert text.count("gpu not met") == 1 and "  d.pt2: gpu not met" in text
    artifact(tmp_path / "best.pt2", mask=SM89)
    assert "  all 4 others: platform not met" in select(tmp_path).output


@pytest.mark.usefixtures("machine")
def test_the_release_counts_to_its_last_number(tmp_path: Path) -> None:
    """The plan's own header decides, whatever the manifest states."""
    header = bytearray(plan(b"engine"))
    header[24:28] = bytes([1, 6, 1, 119])
    Handmade(engines=[bytes(header)]).write(tmp_path / "other.pt2")
    rows = found(tmp_path, code=3)
    assert rows["other.pt2"]["reasons"] == [
        "runtime not met: needs tensorrt-rtx 1.6.1.119 exactly; here: tensorrt-rtx 1.6.1.120"
    ]


@pytest.mark.usefixtures("machine")
def test_unlisted_gpus_only_when_allowed_and_last(tmp_path: Path) -> None:
    artifact(tmp_path / "blackwell.pt2", mask=0x10)
    artifact(tmp_path / "ampere.pt2", mask=SM80)
    assert {row["outcome"] for row in found(tmp_path, code=3).values()} == {"does not fit"}
    rows = found(tmp_path, "--allow-unlisted-gpu")
    assert rows["ampere.pt2"]["outcome"] == "best"
    assert "gpu: built for other GPUs; the best: built for an earlier GPU" in rows["blackwell.pt2"]["reasons"][0]
    artifact(tmp_path / "ada.pt2", mask=SM89, created="2020-01-01T00:00:00Z")
    assert found(tmp_path, "--allow-unlisted-gpu")["ada.pt2"]["outcome"] == "best"


@pytest.mark.usefixtures("machine")
def test_one_model_among_several(tmp_path: Path) -> None:
    artifact(tmp_path / "a.pt2", model__name="first")
    artifact(tmp_path / "b.pt2", model__name="second", created="2027-01-01T00:00:00Z")
    assert "2 models are here; --model chooses" in select(tmp_path).stdout
    rows = found(tmp_path, "--model", "first")
    assert (rows["a.pt2"]["outcome"], rows["b.pt2"]["reasons"]) == ("best", ["it holds the model 'second'"])


def test_what_is_unknown_is_no_fit(tmp_path: Path, machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact(tmp_path / "a.pt2")
    monkeypatch.setattr(preflight, "probe_gpus", lambda: Gpus(problem="the driver did not answer", known=False))
    rows = found(tmp_path, code=3)
    assert rows["a.pt2"]["outcome"] == "unknown" and "did not answer" in rows["a.pt2"]["reasons"][0]


def test_no_folder_and_an_empty_one(tmp_path: Path) -> None:
    assert select(tmp_path / "none").exit_code == 2
    (tmp_path / "file").write_text("")
    assert select(tmp_path / "file").exit_code == 2
    (tmp_path / "empty").mkdir()
    result = select(tmp_path / "empty", "--json")
    assert (result.exit_code, json.loads(result.stdout)["error"]["kind"]) == (3, "IncompatibleError")


@pytest.mark.usefixtures("machine")
def test_files_that_are_no_artifacts_are_rows(tmp_path: Path) -> None:
    artifact(tmp_path / "good.pt2", mask=SM89)
    (tmp_path / "text.pt2").write_text("no zip")
    (tmp_path / "empty.PT2").write_bytes(b"")
    (tmp_path / "folder.pt2").mkdir()
    names = {"good.pt2", "text.pt2", "empty.PT2", "folder.pt2"}
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe.pt2")
        (tmp_path / "dangling.pt2").symlink_to("nothing")
        (tmp_path / "loop.pt2").symlink_to("loop.pt2")
        shutil.copy(tmp_path / "text.pt2", tmp_path / "new\nline\x1b[31m.pt2")
        names |= {"pipe.pt2", "dangling.pt2", "loop.pt2", "new\nline\x1b[31m.pt2"}
    rows = found(tmp_path)
    assert rows.keys() == names
    for name in names - {"good.pt2"}:
        assert rows[name]["outcome"] == "refused" and rows[name]["error"]["remedy"], name
    assert "\x1b" not in select(tmp_path).stdout


@pytest.mark.usefixtures("machine")
def test_the_best_is_one_that_would_be_taken(tmp_path: Path) -> None:
    """A newer artifact whose graph holds code is a candidate until its graph is read."""
    artifact(tmp_path / "good.pt2")
    evil = Handmade(edit_manifest=lambda document: document.update(created="2030-01-01T00:00:00Z"))
    assert evil.graph
    evil.graph["guards_code"] = ["__import__('os').system('x')"]
    evil.write(tmp_path / "evil.pt2")
    rows = found(tmp_path)
    assert (rows["good.pt2"]["outcome"], rows["evil.pt2"]["outcome"]) == ("best", "refused")
    assert "not safe to load" in rows["evil.pt2"]["reasons"][0]


@pytest.mark.usefixtures("machine")
def test_a_bug_with_one_file_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact(tmp_path / "good.pt2")
    artifact(tmp_path / "odd.pt2")
    opened = selecting.Artifact

    def buggy(path: Path) -> Any:
        if path.name == "odd.pt2":
            raise RecursionError("too deep")
        return opened(path)

    monkeypatch.setattr(selecting, "Artifact", buggy)
    rows = found(tmp_path)
    assert rows["good.pt2"]["outcome"] == "best" and "RecursionError" in rows["odd.pt2"]["reasons"][0]


def test_it_loads_no_engine_and_imports_no_torch(tmp_path: Path) -> None:
    from tests.unit.imports import imported_by

    artifact(tmp_path / "a.pt2", target__platform=host_platform() if "-x86_64" in host_platform() else "linux-x86_64")
    code = (
        "import sys; from toolchain.cli.main import cli; from toolchain import artifact\n"
        "artifact.Engine.read = artifact.Engine.chunks = None\n"
        "try: cli(['select', sys.argv[1]], standalone_mode=False)\n"
        "except SystemExit: pass"
    )
    assert not imported_by(code, str(tmp_path)) & {"torch", "numpy", "sympy", "tensorrt_rtx", "linux_side"}


# --- the ordering

STATES = st.sampled_from(State)
CANDIDATES = st.builds(
    lambda number, state, platform, runtime, **facts: Candidate(
        path=Path(f"{number}.pt2"),
        model="m",
        runtime=Runtime.TORCH,
        requirements=tuple(
            Requirement(name, met, "n", "f")
            for name, met in (("platform", platform), ("runtime", runtime), ("torch", state))
        ),
        **facts,
    ),
    number=st.integers(0, 10**9),
    state=STATES,
    platform=STATES,
    runtime=STATES,
    created=st.integers(0, 3).map(lambda days: EPOCH + timedelta(days=days)),
    coverage=st.sampled_from([None, 0.0, 0.5, 1.0]),
    gpus=st.integers(0, 3),
    gpu_match=st.sampled_from(GpuMatch),
)
FOLDERS = st.lists(CANDIDATES, min_size=1, max_size=12, unique_by=lambda candidate: candidate.path)


def better(one: Candidate, other: Candidate) -> int:
    """Compares two candidates by the contract: the first criterion that differs decides, then the path."""
    for criterion in CRITERIA:
        if criterion.rank(one) != criterion.rank(other):
            return -1 if criterion.rank(one) > criterion.rank(other) else 1
    return -1 if one.path < other.path else 1


@settings(max_examples=300, deadline=None)
@given(FOLDERS, st.randoms(use_true_random=False))
def test_the_order_is_total_and_the_same_whatever_comes_first(folder: list[Candidate], random: Any) -> None:
    shuffled = list(folder)
    random.shuffle(shuffled)
    result = ordered(folder)
    assert ordered(shuffled) == result == ordered(result)
    assert result == sorted(folder, key=cmp_to_key(better))
    assert sorted(map(str, folder)) == sorted(map(str, result))


@settings(max_examples=300, deadline=None)
@given(FOLDERS)
def test_the_best_is_never_worse_on_the_first_criterion_that_differs(folder: list[Candidate]) -> None:
    best, *others = ordered(folder)
    for other in others:
        differing = [c for c in CRITERIA if c.rank(best) != c.rank(other)]
        assert not differing or differing[0].rank(best) > differing[0].rank(other)
        assert reasons(other, best)
        if other.fit is State.MET and differing:
            assert reasons(other, best)[0].startswith(f"{differing[0].name}: ")


@given(st.lists(st.sampled_from([ComputeCapability(8, 0), ComputeCapability(8, 6), ADA, HOPPER])))
def test_gpus_that_are_listed_are_the_best_match(listed: list[ComputeCapability]) -> None:
    expected = GpuMatch.EXACT if ADA in listed else GpuMatch.FAMILY if set(listed) - {HOPPER} else GpuMatch.UNLISTED
    assert gpu_match(listed, [ADA]) is expected
    assert gpu_match(listed, []) is GpuMatch.UNLISTED and gpu_match(None, [ADA]) is GpuMatch.UNTOLD
    assert gpu_match(listed, [HOPPER, ADA]) >= gpu_match(listed, [ADA])


def test_the_order_of_the_criteria_is_a_promise() -> None:
    names = [criterion.name for criterion in CRITERIA]
    assert names == ["requirements", "platform", "runtime", "gpu", "coverage", "created", "specificity"]
    assert list(GpuMatch) == [GpuMatch.UNLISTED, GpuMatch.UNTOLD, GpuMatch.FAMILY, GpuMatch.EXACT]
