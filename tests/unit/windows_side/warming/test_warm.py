"""``warm`` without a GPU: the calls that it makes, how its child ends, and the files that remain."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click.testing
import pytest

from tests.conftest import ROOT
from toolchain import open_artifact
from toolchain.errors import IncompatibleError, TrtcrossError, UsageError
from toolchain.io.python_child import python_child
from windows_side.commands.warm import warm as verb
from windows_side.kernel_files import KernelFile
from windows_side.options import RunOptions
from windows_side.warming import child
from windows_side.warming import warm as warming
from windows_side.warming.sizes import calls_for, parse_sizes
from windows_side.warming.warm import WarmEvent, job_for, warm

FOLDER = ROOT / "tests" / "compatibility" / "schema1"
DYNAMIC = FOLDER / "dynamic.pt2"


def shapes(name: str, wanted: list[dict[str, int]] | None = None) -> list[Any]:
    with open_artifact(FOLDER / f"{name}.pt2") as artifact:
        return [call.shapes for call in calls_for(artifact.manifest, wanted)]


def test_each_profile_is_called_at_its_opt_unless_sizes_are_named() -> None:
    assert shapes("dynamic") == [((1, 8),), ((4, 8),)]
    assert shapes("dynamic", [{"x.0": 3}, {}, {"x.0": 1}]) == [((3, 8),), ((1, 8),)]
    assert shapes("static") == [((2, 8),)]
    assert shapes("foreign", [{"shift.0": 4}]) == [((4, 4), (4, 4))], "equal sizes follow"


@pytest.mark.parametrize(
    ("name", "wanted", "problem"),
    [
        ("dynamic", {"y.0": 1}, "no dimension 'y.0' may vary"),
        ("dynamic", {"x.1": 8}, "no dimension 'x.1' may vary"),
        ("static", {"x.0": 2}, "no dimension 'x.0' may vary"),
        ("dynamic", {"x.0": 10**6}, "x.0 cannot be 1000000"),
        ("foreign", {"x.0": 2, "shift.0": 3}, "the same size as another"),
    ],
)
def test_sizes_that_the_model_does_not_take(name: str, wanted: dict[str, int], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        shapes(name, [wanted])


def test_sizes_on_the_command_line() -> None:
    assert parse_sizes("x.0=8, y.1=64") == {"x.0": 8, "y.1": 64}
    for text in ("", "x.0", "x.0=", "x.0=a", "=3", "x.0=1,x.0=2", "x.0=-1", "x.0=²"):
        with pytest.raises(UsageError):
            parse_sizes(text)


@pytest.fixture
def behave(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces the child by the stand-in, and waives the requirements on the machine."""

    def as_told(behaviour: str) -> None:
        monkeypatch.setenv("STAND_IN", behaviour)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        module = "tests.unit.windows_side.warming.stand_in"
        monkeypatch.setattr(warming, "python_child", lambda _, *arguments: python_child(module, *arguments))
        monkeypatch.setattr(warming, "admit", lambda *_: [])

    return as_told


def test_events_come_in_order_and_the_report_has_the_ends(
    behave: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behave("takes_time")
    monkeypatch.setattr(warming, "_TICK", 0.15)
    events: list[WarmEvent] = []
    report = warm(DYNAMIC, runtime_cache=tmp_path, on_event=events.append)
    assert [event.sizes["x.0"] for event in report.calls] == [1, 4] and not report.cancelled
    assert [event.kind for event in events if event.kind != "seconds"] == ["start", "end"] * 2
    for sizes in ({"x.0": 1}, {"x.0": 4}):
        seconds = [event.seconds for event in events if event.sizes == sizes and event.kind == "seconds"]
        assert len(seconds) > 1 and seconds == sorted(seconds)
    assert report.seconds > 1 and report.folder == str(tmp_path)


def test_cancelling_ends_it_within_a_second_and_leaves_whole_files(behave: Any, tmp_path: Path) -> None:
    """Kills the child several times, because a kill hits the middle of a write only by chance."""
    behave("writes")
    for delay in (0.0, 0.1, 0.2, 0.3):
        cancel = threading.Event()
        set_at: list[float] = []

        def later(cancel: threading.Event = cancel, delay: float = delay, set_at: list[float] = set_at) -> None:
            while not list(tmp_path.glob("*.kernels")):
                time.sleep(0.01)
            time.sleep(delay)
            set_at.append(time.monotonic())
            cancel.set()

        threading.Thread(target=later).start()
        report = warm(DYNAMIC, runtime_cache=tmp_path, cancel=cancel)
        assert time.monotonic() - set_at[0] < 1
        assert report.cancelled and report.calls == []
        assert _has_ended(int((tmp_path / "pid").read_text()))
        there = list(tmp_path.glob("*.kernels"))
        files = [KernelFile(tmp_path, {"model": str(number)}) for number in range(4)]
        assert there and all(file.read() for file in files if file.path in there)
        assert not list(tmp_path.glob("*.part"))


def _has_ended(pid: int) -> bool:
    if os.name == "nt":
        return (
            str(pid) not in subprocess.run(["tasklist", "/FI", f"PID eq {pid}"], capture_output=True, text=True).stdout
        )
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "Z" in Path(f"/proc/{pid}/status").read_text().partition("State:")[2][:4]


@pytest.mark.skipif(os.name == "nt", reason="kills a process by a signal")
def test_the_child_ends_with_its_parent(behave: Any, tmp_path: Path) -> None:
    behave("writes")
    code = (
        "import sys\n"
        "from toolchain.io.python_child import python_child\n"
        "from windows_side.warming import warm as w\n"
        "w.admit = lambda *_: []\n"
        "w.python_child = lambda _, *a: python_child('tests.unit.windows_side.warming.stand_in', *a)\n"
        "w.warm(sys.argv[1], runtime_cache=sys.argv[2])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(DYNAMIC), str(tmp_path)], cwd=ROOT)
    waited = time.monotonic()
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert parent.poll() is None and time.monotonic() - waited < 60
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    time.sleep(1)
    assert _has_ended(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("behaviour", "problem"), [("crashes", "the driver has crashed"), ("refuses", "the GPU is gone")]
)
def test_an_error_in_the_child_is_reported(behave: Any, tmp_path: Path, behaviour: str, problem: str) -> None:
    behave(behaviour)
    with pytest.raises(IncompatibleError, match=problem):
        warm(DYNAMIC, runtime_cache=tmp_path)


def test_an_error_of_the_callers_ends_the_child(behave: Any, tmp_path: Path) -> None:
    behave("takes_time")

    def fail(_: WarmEvent) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        warm(DYNAMIC, runtime_cache=tmp_path, on_event=fail)


def test_the_verb(behave: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRTCROSS_RUNTIME_CACHE", str(tmp_path))
    behave("is_quick")
    done = click.testing.CliRunner().invoke(verb, [str(DYNAMIC), "--size", "x.0=2", "--size", "x.0=3", "--json"])
    document = json.loads(done.stdout)
    assert (done.exit_code, document["ok"]) == (0, True), done.output
    assert document["calls"] == [{"sizes": {"x.0": n}, "cuda_graphs": False, "seconds": 0.5} for n in (2, 3)]
    assert document["folder"] == str(tmp_path)
    wrong = click.testing.CliRunner().invoke(verb, [str(DYNAMIC), "--size", "x.0", "--json"])
    assert (wrong.exit_code, json.loads(wrong.stdout)["error"]["kind"]) == (2, "UsageError")


def test_without_a_gpu_it_is_refused_before_a_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(warming, "python_child", lambda *_: pytest.fail("a process was started"))
    with pytest.raises(TrtcrossError) as refused:
        warm(DYNAMIC)
    assert refused.value.exit_code in (3, 8)


def test_the_child_calls_a_session_with_every_shape(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The session runs on the host, because TensorRT's own kernels need a GPU."""
    pytest.importorskip("tensorrt_rtx")
    from tests.unit.windows_side.session.host_gpu import on_host

    host = on_host(monkeypatch)
    monkeypatch.setattr(warming, "admit", lambda *_: [])
    options = RunOptions(runtime="tensorrt", runtime_cache=tmp_path, allow_unlisted_gpu=True)
    with open_artifact(DYNAMIC) as artifact:
        job = json.loads(json.dumps(job_for(artifact, options, [{"x.0": 2}, {"x.0": 4}])))
    assert job["cuda_graphs"] == [False, True], "kernels for captured calls are others"
    events = io.StringIO()
    child.run(job, events)
    said = [json.loads(line) for line in events.getvalue().splitlines()]
    assert [event["kind"] for event in said] == ["start", "end"] * 4 + ["done"]
    assert [event.get("cuda_graphs") for event in said[::2]] == [False, False, True, True, None]
    plain, captured = [engine.calls for engine in host.engines]
    assert plain == 2 <= captured, "a capture is preceded by calls"


def test_kernels_that_cannot_be_kept_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def calls(*_: object) -> None:
        child.cache_logger.warning("compiled kernels are not kept in %s: %s", "x", "the disk is full")

    monkeypatch.setattr(child, "_calls", calls)
    with pytest.raises(UsageError, match="the disk is full"):
        child.run({"artifact": str(DYNAMIC), "cuda_graphs": [False]}, io.StringIO())


def test_kernels_that_nobody_keeps_are_not_compiled(behave: Any) -> None:
    behave("takes_time")
    with pytest.raises(UsageError, match="compiled to be kept"):
        warm(DYNAMIC, runtime_cache=False)
