"""The build cache without torch: its keys, its entries, which entries it serves, and `trtcross store`."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import time
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from linux_side.cache import key as keys
from linux_side.cache import store
from linux_side.cache.key import file_key, program_key
from linux_side.cache.lookup import fetch, keep
from linux_side.cache.store import BuildCache
from linux_side.commands.store import store as store_command
from linux_side.options import BuildOptions, DynamicDimension
from tests.unit.handmade import Handmade, plan
from toolchain import open_artifact
from toolchain.container.entry_names import MANIFEST_ENTRY
from toolchain.errors import BuildFailedError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="builds are made on Linux")

KEY, OTHER, THIRD = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture
def cache(tmp_path: Path) -> BuildCache:
    return BuildCache(tmp_path / "cache", 2**30)


def built(folder: Path, key: str = KEY, size: int = 0) -> Path:
    """Writes an artifact as a build does."""

    def edit(document: dict[str, Any]) -> None:
        document["build"] = {"seconds": {"convert": 1.5}, "cache_key": key, "from_cache": False}

    return Handmade(engines=[plan(key.encode() + bytes(size))], edit_manifest=edit).write(folder / f"{key[:4]}.pt2")


def add(cache: BuildCache, folder: Path, key: str = KEY, size: int = 0) -> Path:
    path = built(folder, key, size)
    assert cache.add(key, path)
    return path


def parts(path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Returns the bytes of every entry except the manifest, and the manifest."""
    with open_artifact(path) as artifact:
        entries = {name: artifact.container.read(name) for name in artifact.container.entries}
    return entries, json.loads(entries.pop(MANIFEST_ENTRY))


def test_what_is_served_is_the_build_but_for_created_and_build(cache: BuildCache, tmp_path: Path) -> None:
    first, second, warnings = add(cache, tmp_path), tmp_path / "second.pt2", list[str]()
    assert fetch(cache, KEY, second, {"export": 2.0}, warnings.append) and not warnings
    (entries, manifest), (served, new) = parts(first), parts(second)
    assert list(served.items()) == list(entries.items())
    assert new.pop("build") == {"seconds": {"export": 2.0}, "cache_key": KEY, "from_cache": True}
    assert new.pop("created") > manifest.pop("created")
    del manifest["build"]
    assert new == manifest
    with open_artifact(second) as artifact:
        artifact.check_integrity()


def test_an_unknown_key_is_a_quiet_miss(cache: BuildCache, tmp_path: Path) -> None:
    warnings: list[str] = []
    assert not fetch(cache, KEY, tmp_path / "out.pt2", {}, warnings.append)
    add(cache, tmp_path, OTHER)
    assert not fetch(cache, KEY, tmp_path / "out.pt2", {}, warnings.append)
    assert not warnings and not (tmp_path / "out.pt2").exists()


def flip(data: bytearray, position: int) -> bytes:
    data[position] ^= 0x10
    return bytes(data)


def test_an_entry_with_any_flipped_byte_is_never_served(cache: BuildCache, tmp_path: Path) -> None:
    whole, out = add(cache, tmp_path).read_bytes(), tmp_path / "out.pt2"
    cache.remove(cache.entries())
    for position in range(0, len(whole), 23):  # tests/attacks flips every byte
        (tmp_path / "aaaa.pt2").write_bytes(flip(bytearray(whole), position))
        cache.add(KEY, tmp_path / "aaaa.pt2")
        warnings: list[str] = []
        assert not fetch(cache, KEY, out, {}, warnings.append), position
        assert len(warnings) == 1 and "damaged" in warnings[0]
        assert not out.exists() and not cache.entries()


def cut_in_half(artifact: Path) -> None:
    os.truncate(artifact, artifact.stat().st_size // 2)


def empty(artifact: Path) -> None:
    os.truncate(artifact, 0)


def take_out_the_manifest(artifact: Path) -> None:
    from toolchain.container.reader import Container
    from toolchain.container.writer import ContainerWriter

    container = Container(artifact)
    with ContainerWriter(artifact) as writer:
        for name in container.entries:
            if name != MANIFEST_ENTRY:
                writer.copy(container, name)
    container.close()


def another_builds(artifact: Path) -> None:
    shutil.copy(built(artifact.parent, OTHER), artifact)
    (artifact.parent / "bbbb.pt2").unlink()


def no_zip(artifact: Path) -> None:
    artifact.write_text("not a zip")


@pytest.mark.parametrize("damage", [cut_in_half, empty, take_out_the_manifest, another_builds, no_zip, Path.unlink])
def test_a_damaged_entry_is_reported_removed_and_made_again(damage: Any, cache: BuildCache, tmp_path: Path) -> None:
    path, out, warnings = add(cache, tmp_path), tmp_path / "out.pt2", list[str]()
    damage(cache.folder / KEY / "artifact.pt2")
    assert not fetch(cache, KEY, out, {}, warnings.append)
    assert len(warnings) == 1 and "damaged" in warnings[0] and KEY[:12] in warnings[0]
    assert not out.exists() and not cache.entries()
    assert cache.add(KEY, path) and fetch(cache, KEY, out, {}, warnings.append) and len(warnings) == 1


def test_a_full_or_forbidden_destination_is_the_builds_error_and_harms_no_entry(
    cache: BuildCache, tmp_path: Path
) -> None:
    add(cache, tmp_path)
    with pytest.raises(BuildFailedError, match="cannot be written to"):
        fetch(cache, KEY, tmp_path / "nowhere" / "out.pt2", {}, lambda text: pytest.fail(text))
    assert [entry.key for entry in cache.entries()] == [KEY]


def test_the_least_recently_used_goes_first(cache: BuildCache, tmp_path: Path) -> None:
    size = 200_000
    for key in (KEY, OTHER, THIRD):
        add(cache, tmp_path, key, size)
        time.sleep(0.01)
    assert fetch(cache, KEY, tmp_path / "out.pt2", {}, lambda text: pytest.fail(text))
    cache.limit = sum(entry.size for entry in cache.entries()) + 1000
    add(cache, tmp_path, "d" * 64, size)
    assert [entry.key for entry in cache.entries()] == [THIRD, KEY, "d" * 64]
    assert sum(entry.size for entry in cache.entries()) <= cache.limit


def test_a_build_bigger_than_the_whole_cache_drives_nothing_out(cache: BuildCache, tmp_path: Path) -> None:
    add(cache, tmp_path)
    cache.limit, warnings = 100_000, list[str]()
    with open_artifact(built(tmp_path, OTHER, 200_000)) as artifact:
        keep(cache, artifact, warnings.append)
    assert len(warnings) == 1 and "97.7 KiB" in warnings[0]
    assert [entry.key for entry in cache.entries()] == [KEY]


def _add_many(folder: Path, artifacts: list[tuple[str, Path]], limit: int) -> None:
    for key, path in artifacts:
        BuildCache(folder, limit).add(key, path)


def test_many_processes_add_the_same_and_others(tmp_path: Path) -> None:
    artifacts = [(letter * 64, built(tmp_path, letter * 64, 50_000)) for letter in "abcdef"]
    cache = BuildCache(tmp_path / "cache", 4 * artifacts[0][1].stat().st_size)
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_add_many, args=(cache.folder, artifacts[n % 3 :] + artifacts, cache.limit))
        for n in range(6)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
    entries = cache.entries()
    assert len(entries) == 4 and sum(entry.size for entry in entries) <= cache.limit
    for entry in entries:
        assert fetch(cache, entry.key, tmp_path / "out.pt2", {}, lambda text: pytest.fail(text))
    assert not list(cache.folder.glob(".part-*"))


def test_what_a_killed_process_left_is_never_seen_and_goes_with_the_next_one(cache: BuildCache, tmp_path: Path) -> None:
    add(cache, tmp_path)
    left = cache.folder / ".part-1-abc"
    left.mkdir()
    (left / "artifact.pt2").write_bytes(b"half")
    assert [entry.key for entry in cache.entries()] == [KEY]
    add(cache, tmp_path, OTHER)
    assert not left.exists()


def test_what_is_not_the_caches_own_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    mine = tmp_path / "cache" / "thesis.txt"
    mine.write_text("years of work")
    cache = BuildCache(tmp_path / "cache", 2**30)
    add(cache, tmp_path)
    cache.limit = 1
    cache.remove(cache.entries())
    assert mine.read_text() == "years of work" and not cache.entries()


def test_an_entry_that_was_made_anew_is_not_removed_for_the_old_ones_damage(cache: BuildCache, tmp_path: Path) -> None:
    path = add(cache, tmp_path)
    old = cache.entries()
    kept = (cache.folder / KEY).rename(tmp_path / "kept")  # so that its inode is not given out again
    cache.add(KEY, path)
    assert cache.remove(old) == [] and kept.exists()
    assert [entry.key for entry in cache.entries()] == [KEY]


def test_a_cache_that_is_locked_for_long_keeps_no_build_waiting(
    cache: BuildCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.1)
    warnings: list[str] = []
    with cache._locked(), open_artifact(built(tmp_path)) as artifact:
        keep(cache, artifact, warnings.append)
    assert len(warnings) == 1 and "could not be acquired" in warnings[0] and "not kept" in warnings[0]


def test_an_unusable_cache_is_reported_once_for_each_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    cache, warnings = BuildCache(tmp_path / "file" / "cache", 2**30), list[str]()
    assert not fetch(cache, KEY, tmp_path / "out.pt2", {}, warnings.append)
    with open_artifact(built(tmp_path)) as artifact:
        keep(cache, artifact, warnings.append)
    assert len(warnings) == 2
    assert "cannot be read" in warnings[0] and "cannot be written to" in warnings[1]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"a program")
    return path


def test_the_key_is_of_the_content_and_not_of_the_place(source: Path, tmp_path: Path) -> None:
    options = BuildOptions()
    before = file_key(source, None, options)
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(source, tmp_path / "elsewhere")
    assert file_key(tmp_path / "elsewhere" / "model.pt2", None, options) == before
    assert file_key(source, "another name", options) != before
    source.write_bytes(b"a progran")
    assert file_key(source, None, options) != before


CHANGED_OPTIONS: dict[str, Any] = {
    "target": "linux-x86_64",
    "backend": "tensorrt-rtx",
    "gpus": ["sm_89"],
    "precision": "fp16",
    "keep_fp32": ["aten.gelu"],
    "precision_plan": {"version": 1, "precision": "fp16", "keep_fp32": ["encoder"]},
    "task": "fill-mask",
    "tf32": False,
    "dynamic": [DynamicDimension.parse("x.0=1:2:4")],
    "golden": 2,
    "min_block_size": 2,
    "torch_executed_ops": ["aten.relu"],
    "require_full_coverage": True,
    "require_no_torch": True,
    "allow_no_engine": True,
    "workspace": 1,
}


def test_every_option_is_in_the_key(source: Path) -> None:
    assert {*CHANGED_OPTIONS, "tolerance"} == set(BuildOptions.model_fields)
    found = [file_key(source, None, BuildOptions(**{name: value})) for name, value in CHANGED_OPTIONS.items()]
    found += [file_key(source, None, BuildOptions(precision="auto", tolerance=size)) for size in (0.1, 0.2)]
    assert len({file_key(source, None, BuildOptions()), *found}) == len(CHANGED_OPTIONS) + 3


@pytest.mark.parametrize("changed", ["torch", "torch-tensorrt-rtx", "tensorrt-rtx", "trtcross"])
def test_every_version_is_in_the_key(changed: str, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, version = file_key(source, None, BuildOptions()), metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "9.9" if name == changed else version(name))
    assert file_key(source, None, BuildOptions()) != before


def test_our_own_code_and_python_are_in_the_key(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file_key(source, None, BuildOptions())
    with monkeypatch.context() as patch:
        patch.setattr(keys.platform, "python_version", lambda: "3.99.0")
        assert file_key(source, None, BuildOptions()) != before
    monkeypatch.setattr(keys, "_PACKAGES", keys._PACKAGES[1:])
    assert file_key(source, None, BuildOptions()) != before


@pytest.mark.parametrize(
    ("file", "matters"),
    [
        ("frontend/source.py", True),
        ("exporter/lift.py", True),
        ("schema/matrix-1.json", True),
        ("commands/build.py", False),
        ("matrix/planning/plan.py", False),
    ],
)
def test_code_and_data_in_a_room_are_in_the_key(tmp_path: Path, file: str, matters: bool) -> None:
    package = tmp_path / "linux_side"
    shutil.copytree(Path(keys.__file__).parents[1], package)
    before = keys.sources_digest([package])
    with (package / file).open("a") as changed:
        changed.write("\n")
    assert (keys.sources_digest([package]) != before) is matters


def test_a_programs_key_has_the_gpu_and_the_golden_outputs(source: Path) -> None:
    options = BuildOptions(backend="tensorrt")
    assert file_key(source, None, options) is None
    plain = program_key("0" * 64, b"golden", "name", None, options)
    assert plain == program_key("0" * 64, b"golden", "name", None, options)
    assert plain != program_key("0" * 64, b"golden", "name", "NVIDIA H100", options)
    assert plain != program_key("0" * 64, b"other", "name", None, options)
    assert plain != program_key("1" * 64, b"golden", "name", None, options)


@pytest.fixture
def shared(cache: BuildCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildCache:
    """A cache with three builds, which the command line uses."""
    for key in (KEY, OTHER, THIRD):
        add(cache, tmp_path, key)
        time.sleep(0.01)
    monkeypatch.setenv("TRTCROSS_CACHE", str(cache.folder))
    monkeypatch.setenv("TRTCROSS_CACHE_SIZE", "1GiB")
    return cache


def run_store(*arguments: str) -> tuple[Result, dict[str, Any]]:
    result = CliRunner().invoke(store_command, [*arguments, "--json"])
    return result, json.loads(result.stdout)


def test_list(shared: BuildCache) -> None:
    result, document = run_store("list")
    assert result.exit_code == 0 and document["verb"] == "store list" and document["limit"] == 2**30
    assert [entry["key"] for entry in document["entries"]] == [THIRD, OTHER, KEY]
    assert document["size"] == sum(entry["size"] for entry in document["entries"])
    assert document["entries"][0]["model"]["name"] == "handmade"
    text = CliRunner().invoke(store_command, ["list"]).stdout
    assert "3 build(s)" in text and "handmade" in text and "tensorrt-rtx 1.6.1.120" in text
    assert "3 build(s)" not in CliRunner().invoke(store_command, ["list", "-q"]).stdout
    no_zip(shared.folder / KEY / "artifact.pt2")
    assert [entry["readable"] for entry in run_store("list")[1]["entries"]] == [True, True, False]


def test_verify_names_what_is_damaged_and_prune_removes_it(shared: BuildCache) -> None:
    result, document = run_store("verify")
    assert result.exit_code == 0 and all(entry["sound"] for entry in document["entries"])
    artifact = shared.folder / OTHER / "artifact.pt2"
    artifact.write_bytes(flip(bytearray(artifact.read_bytes()), artifact.stat().st_size // 2))
    result, document = run_store("verify")
    assert result.exit_code == 4 and document["error"]["remedy"] == "trtcross store prune --damaged"
    assert [entry["key"] for entry in document["entries"] if not entry["sound"]] == [OTHER]
    result, document = run_store("prune", "--damaged")
    assert result.exit_code == 0 and document["removed"] == [OTHER] and document["freed"] > 0
    assert run_store("verify")[0].exit_code == 0


def test_prune(shared: BuildCache, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_store("prune")[1]["removed"] == []
    one = shared.entries()[0].size
    assert run_store("prune", "--max-size", str(2 * one + 10))[1]["removed"] == [KEY]
    past = time.time() - timedelta(days=8).total_seconds()
    os.utime(shared.folder / OTHER, (past, past))
    assert run_store("prune", "--older-than", "9")[1]["removed"] == []
    assert run_store("prune", "--older-than", "7")[1]["removed"] == [OTHER]
    assert run_store("prune", "--all")[1]["removed"] == [THIRD]
    assert run_store("list")[1]["entries"] == []
    monkeypatch.setenv("TRTCROSS_CACHE_SIZE", "much")
    assert run_store("list")[0].exit_code == 2


def test_a_store_that_cannot_be_read_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TRTCROSS_CACHE", str(tmp_path / "file" / "cache"))
    result, document = run_store("list")
    assert result.exit_code == 2 and "TRTCROSS_CACHE" in document["error"]["remedy"]
