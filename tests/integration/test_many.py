"""Several artifacts of one model, built at once, equal those built alone, and a failure of one affects no other."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from linux_side import BuildOptions, build, build_many
from tests.conftest import Trtcross
from tests.integration.waiting import running, started, wait_for
from toolchain.container.entry_names import MANIFEST_ENTRY
from toolchain.errors import BuildFailedError, UsageError

pytestmark = pytest.mark.rtx

COUNTED = "tests.integration.matrix_models:counted"


def content(path: Path) -> dict[str, Any]:
    """Returns an artifact's entries, without dates and durations."""
    with zipfile.ZipFile(path) as archive:
        entries: dict[str, Any] = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(entries.pop(MANIFEST_ENTRY))
    return {
        **entries,
        "manifest": {name: value for name, value in manifest.items() if name not in ("created", "build")},
    }


def open_files() -> list[str]:
    """Returns what this process's descriptors stand for, a path or a kind."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # of the listing itself
            found.append(str(descriptor.readlink()))
    return found


def descendants() -> list[psutil.Process]:
    """Returns the running processes that this one has started, the youngest last."""
    found = [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    return sorted(found, key=lambda child: (child.create_time(), child.pid))


@pytest.mark.usefixtures("warm_builds")
def test_each_has_the_bytes_of_a_build_by_itself_and_the_model_is_made_once(
    tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTED", str(tmp_path / "calls"))
    options = {
        "32.pt2": BuildOptions(),
        "32-linux.pt2": BuildOptions(target="linux-x86_64"),
        "16-linux.pt2": BuildOptions(precision="fp16", target="linux-x86_64"),
        "86.pt2": BuildOptions(gpus=["sm_89", "sm_86"], precision="fp16"),
    }
    together = {tmp_path / name: wanted for name, wanted in options.items()}
    log = io.BytesIO()
    built = build_many(COUNTED, together, cache=False, log=log)
    assert [one.out for one in built] == list(together)
    assert not any(one.error for one in built) and b"built by itself" not in log.getvalue()
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
    assert not [name for name in open_files() if name.startswith(str(spool))]
    for name in ("32-linux.pt2", "86.pt2"):
        build(COUNTED, tmp_path / f"alone-{name}", options=options[name], cache=False).close()
        assert content(tmp_path / name) == content(tmp_path / f"alone-{name}")
    windows, linux = content(tmp_path / "32.pt2"), content(tmp_path / "32-linux.pt2")
    assert windows["manifest"]["target"]["platform"] == "windows-x86_64" != linux["manifest"]["target"]["platform"]
    assert windows["manifest"]["engines"][0]["sha256"] == linux["manifest"]["engines"][0]["sha256"]
    assert b"windows_x86_64" in windows["models/model.json"] and b"windows_x86_64" not in linux["models/model.json"]
    assert not list(spool.glob("trtcross-*"))


@pytest.mark.usefixtures("spool", "warm_builds")
def test_each_is_found_in_the_cache_by_itself_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTCROSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRTCROSS_CACHE_SIZE", "1GiB")
    events: list[dict[str, Any]] = []
    first, second = tmp_path / "1.pt2", tmp_path / "2.pt2"
    build("tests.models:tiny", first, precision="fp16").close()
    builds = {first: BuildOptions(precision="fp16"), second: BuildOptions()}
    built = build_many("tests.models:tiny", builds, progress=events.append)
    assert [one.error for one in built] == [None, None]
    assert [one.artifact.manifest.build.from_cache for one in built if one.artifact] == [True, False]
    assert [event["out"] for event in events if event["event"] == "cached"] == [str(first)]
    looked = [event["out"] for event in events if event["event"] == "start" and event["phase"] == "cache"]
    assert looked == [str(first), str(second)]
    with build("tests.models:tiny", tmp_path / "3.pt2") as again:
        assert again.manifest.build.from_cache


@pytest.mark.usefixtures("warm_builds")
def test_a_process_with_threads_is_not_forked_and_the_log_says_so(tmp_path: Path, spool: Path) -> None:
    log = io.BytesIO()
    builds = {tmp_path / "a.pt2": BuildOptions(), tmp_path / "b.pt2": BuildOptions(precision="fp16")}
    built = build_many("tests.integration.matrix_models:threaded", builds, cache=False, log=log)
    assert not any(one.error for one in built)
    assert log.getvalue().count(b"built by itself: the process that it would share cannot be forked: 1 more") == 2


@pytest.mark.usefixtures("warm_builds")
def test_a_crash_of_one_is_its_own(tmp_path: Path, spool: Path) -> None:
    broken, sound = tmp_path / "a.pt2", tmp_path / "b.pt2"
    builds = {broken: BuildOptions(workspace=2**20), sound: BuildOptions(workspace=2**21)}

    def progress(event: dict[str, Any]) -> None:
        if event["out"] == str(broken) and event["event"] == "start" and event["phase"] == "convert":
            descendants()[-1].kill()

    one, other = build_many("tests.models:tiny", builds, cache=False, jobs=1, progress=progress)
    assert isinstance(one.error, BuildFailedError) and one.error.ended and one.error.ended.killed
    assert other.artifact and not other.error
    assert not broken.exists() and not list(tmp_path.glob(".*")) and not list(spool.glob("trtcross-*"))


@pytest.mark.usefixtures("warm_builds")
def test_what_kills_the_shared_process_is_found_for_each_by_itself(tmp_path: Path, spool: Path) -> None:
    builds = {tmp_path / "a.pt2": BuildOptions(), tmp_path / "b.pt2": BuildOptions(precision="fp16")}
    built = build_many("tests.integration.matrix_models:killed", builds, cache=False)
    assert all(isinstance(one.error, BuildFailedError) and one.error.ended and one.error.ended.killed for one in built)


@pytest.mark.usefixtures("warm_builds")
def test_builds_whose_shared_process_is_killed_later_are_built_by_themselves(tmp_path: Path, spool: Path) -> None:
    builds = {tmp_path / f"{name}.pt2": BuildOptions(workspace=size) for name, size in {"a": 2**20, "b": 2**21}.items()}
    killed: list[int] = []

    def progress(event: dict[str, Any]) -> None:
        if event["event"] == "start" and event["phase"] == "convert" and not killed:
            shared = descendants()[-1].parent()
            assert shared
            killed.append(shared.pid)
            shared.kill()

    log = io.BytesIO()
    built = build_many("tests.models:tiny", builds, cache=False, jobs=1, progress=progress, log=log)
    assert killed and not any(one.error for one in built)
    assert log.getvalue().count(b"built by itself: the process that it would share has ended") == 2


@pytest.mark.usefixtures("spool", "warm_builds")
@pytest.mark.parametrize("allowed_first", [True, False])
def test_what_one_allows_is_not_allowed_to_another(tmp_path: Path, allowed_first: bool) -> None:
    allowed, other = tmp_path / "allowed.pt2", tmp_path / "other.pt2"
    options = {
        allowed: BuildOptions(allow_no_engine=True, torch_executed_ops=["trtcross_test.double.default"]),
        other: BuildOptions(allow_no_engine=True),
    }
    order = (allowed, other) if allowed_first else (other, allowed)
    built = build_many("tests.models:custom", {out: options[out] for out in order}, cache=False)
    errors = {one.out: one.error for one in built}
    assert errors[allowed] is None
    assert "calls the custom operator trtcross_test.double" in str(errors[other])


@pytest.mark.usefixtures("warm_builds")
def test_what_a_callback_raises_ends_them_all_and_goes_on(tmp_path: Path, spool: Path) -> None:
    class EnoughError(Exception):
        pass

    def progress(event: dict[str, Any]) -> None:
        if event["event"] == "start" and event["phase"] == "export":
            raise EnoughError

    builds = {tmp_path / "a.pt2": BuildOptions(), tmp_path / "b.pt2": BuildOptions(precision="fp16")}
    before = descendants()  # a browser of other tests, say
    with pytest.raises(EnoughError):
        build_many("tests.models:tiny", builds, cache=False, progress=progress)
    assert (
        all(process in before for process in descendants())
        and not list(spool.glob("trtcross-*"))
        and not list(tmp_path.glob("*.pt2"))
    )


def test_one_that_is_refused_does_not_keep_the_others(tmp_path: Path, warm_trtcross: Trtcross) -> None:
    out = tmp_path / "m-{gpus}.pt2"
    done = warm_trtcross("build", "tests.models:tiny", "--many", "gpus=sm_100,sm_89", "-o", out, "--no-cache", "--json")
    assert done.returncode == 2, done.stderr
    refused, built = json.loads(done.stdout)["artifacts"]
    assert (refused["ok"], refused["error"]["kind"]) == (False, "UsageError")
    assert built["ok"] and built["artifact"] == str(tmp_path / "m-sm_89.pt2")
    assert "1 of 2 builds failed" in done.stderr


@pytest.mark.parametrize(("told", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_told_to_end_they_end_at_once_and_leave_nothing(
    told: signal.Signals, code: int, tmp_path: Path, spool: Path
) -> None:
    command = [sys.executable, "-m", "toolchain", "build", "tests.integration.matrix_models:patient", "--no-cache"]
    command += ["--many", "precision=fp32,fp16", "-o", str(tmp_path / "m-{precision}.pt2")]
    environment = {**os.environ, "PATIENT": str(tmp_path)}
    with subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=interruptible) as process:
        (shared,) = wait_for(lambda: started(tmp_path))
        children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(told)
        start = time.monotonic()
        assert process.wait(60) == code
        assert time.monotonic() - start < 5.0  # one on a machine that has nothing else to do
    wait_for(lambda: not any(map(running, [shared, *children])), 20)
    wait_for(lambda: not list(spool.glob("trtcross-*/tmp*")), 20)


def interruptible() -> None:
    """Restores interrupts: a shell's background job, as a CI may be, ignores them, and so do its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_the_same_place_twice_is_refused(tmp_path: Path) -> None:
    places = [tmp_path / "a.pt2", f"{tmp_path}/x/../a.pt2"]
    with pytest.raises(UsageError, match="same file"):
        build_many("tests.models:tiny", dict.fromkeys(places, BuildOptions()))
