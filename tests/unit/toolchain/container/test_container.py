"""The artifact's file: container, splicing, graph writer, manifest, and conversion."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.handmade import Handmade, plan
from toolchain.artifact import open_artifact
from toolchain.checker.structure import check_structure
from toolchain.container import zip_records
from toolchain.container.entry_names import MANIFEST_ENTRY, ROOT, name_problem
from toolchain.container.reader import Container
from toolchain.container.splice import spliced_archive
from toolchain.container.writer import ContainerWriter
from toolchain.convert import convert_artifact
from toolchain.errors import BuildFailedError, IncompatibleError, MalformedArtifactError, UsageError
from toolchain.graph.writer import engine_from_file
from toolchain.manifest.install import install_lines
from toolchain.manifest.models import SINCE, Manifest
from toolchain.manifest.reading import parse_manifest
from toolchain.targets import Platform

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(lambda n: not name_problem(n))
ENTRIES = st.dictionaries(NAMES, st.binary(), min_size=1, max_size=6).filter(
    lambda entries: len({name.casefold() for name in entries}) == len(entries)
)
quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def write(path: Path, entries: dict[str, bytes]) -> Path:
    with ContainerWriter(path) as writer:
        for name, data in entries.items():
            writer.add(name, data)
    return path


@quick
@given(ENTRIES)
def test_entries_come_out_as_they_went_in(tmp_path: Path, entries: dict[str, bytes]) -> None:
    path = write(tmp_path / "a.pt2", entries)
    container = Container(path)
    assert {name: container.read(name) for name in container.entries} == entries
    assert (container.root, container.foreign_header) == (ROOT, None)
    container.close()
    with zipfile.ZipFile(path) as stock:  # and other readers see the same
        assert stock.testzip() is None
        assert {name.removeprefix(f"{ROOT}/"): stock.read(name) for name in stock.namelist()} == entries


def test_the_same_entries_give_the_same_bytes(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, {"a": b"1", "\u00e9": b"2"}) for name in ("one.pt2", "two.pt2")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_other_zip_writers_store_is_read_and_marked(tmp_path: Path) -> None:
    path = tmp_path / "other.pt2"
    with zipfile.ZipFile(path, "w") as stock:
        stock.writestr("model/archive_format", b"pt2")
    container = Container(path)
    assert (container.read("archive_format"), container.foreign_header) == (b"pt2", "model/archive_format")
    container.close()


@pytest.mark.parametrize("name", ["../a", "/a", "a//b", "a\\b", "c:a", "NUL", "com1.x/a", "a.", "a\n", "a" * 2000, ""])
def test_no_entry_is_written_under_a_dangerous_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(BuildFailedError, match="entry name"), ContainerWriter(tmp_path / "a") as writer:
        writer.add(name, b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 2])
def test_an_entry_of_another_size_than_announced_is_not_written(tmp_path: Path, size: int) -> None:
    with pytest.raises(ValueError, match="should have"), ContainerWriter(tmp_path / "a") as writer:
        writer.stream("x", [b"1"], size)


def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt2", {"old": b"1"})
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), ContainerWriter(path) as writer:
        writer.add("new", b"2" * 100_000)
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_does_not_exist_is_reported_as_unwritable(tmp_path: Path) -> None:
    with pytest.raises(BuildFailedError, match="cannot be written to"), ContainerWriter(tmp_path / "no" / "a.pt2"):
        pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting needs root on Linux")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) - 8192 - 100])
def test_a_full_disk_fails_the_build_and_spares_the_old_file(small_disk: Path, size: int) -> None:
    """The disk is full once while an entry is written, and once when the last bytes are flushed."""
    path = write(small_disk / "a.pt2", {"old": b"1"})
    before = path.read_bytes()
    with pytest.raises(BuildFailedError, match="No space left"), ContainerWriter(path) as writer:
        writer.add("big", bytes(size))
        writer.add("last", bytes(4000))
    assert path.read_bytes() == before
    assert list(small_disk.iterdir()) == [path]


def test_two_streams_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    container = Container(write(tmp_path / "a.pt2", {"a": b"aaaa", "b": b"bbbb"}))
    a, b = (container.chunks(entry.offset, entry.size, 1) for entry in container.entries.values())
    assert b"".join(x + y for x, y in zip(a, b, strict=True)) == b"abababab"
    container.close()


@quick
@given(ENTRIES, st.dictionaries(NAMES, st.binary(), max_size=3))
def test_a_spliced_archive_holds_both_files(tmp_path: Path, kept: dict[str, bytes], new: dict[str, bytes]) -> None:
    path = write(tmp_path / "a.pt2", kept)
    container = Container(path)
    parts = [(name, new.get(name, entry)) for name, entry in container.entries.items()]
    parts += [(name, data) for name, data in new.items() if name not in kept]
    with spliced_archive(container, parts) as file, zipfile.ZipFile(file) as stock:
        assert stock.testzip() is None
        assert {name.removeprefix(f"{ROOT}/"): stock.read(name) for name in stock.namelist()} == {**kept, **new}
    container.close()


@quick
@given(st.lists(st.tuples(st.integers(-50, 400), st.sampled_from([0, 1, 2]), st.integers(0, 90)), max_size=20))
def test_a_spliced_archive_is_a_file_like_any_other(tmp_path: Path, moves: list[tuple[int, int, int]]) -> None:
    path = write(tmp_path / "a.pt2", {"a": b"from the file" * 5})
    container = Container(path)
    entry = container.entry("a")
    with spliced_archive(container, [("n", b"from memory"), ("a", entry)]) as file:
        model = io.BytesIO(file.read())
        file.seek(0)
        for offset, whence, count in moves:
            if model.tell() * (whence == 1) + len(model.getvalue()) * (whence == 2) + offset < 0:
                with pytest.raises(ValueError, match="before its start"):
                    file.seek(offset, whence)
                continue
            # A stream in memory accepts no negative offset from its end or its position.
            target = file.seek(offset, whence)
            model.seek(target)
            assert (file.read(count), file.tell()) == (model.read(count), model.tell())
    container.close()


@quick
@given(st.lists(st.binary(max_size=200), max_size=4), st.dictionaries(NAMES, st.binary(), max_size=2))
def test_any_engines_come_out_as_they_went_in(tmp_path: Path, engines: list[bytes], extra: dict[str, bytes]) -> None:
    entries = {f"data/x/{name}": data for name, data in extra.items() if not name_problem(f"data/x/{name}")}
    entries = {
        name: data for name, data in entries.items() if sum(n.casefold() == name.casefold() for n in entries) < 2
    }
    with open_artifact(Handmade(engines=engines, entries=entries).write(tmp_path / "a.pt2")) as artifact:
        artifact.check_integrity()
        assert [engine.read() for engine in artifact.engines] == engines
        assert [engine.open().read() for engine in artifact.engines] == engines
        assert {name: artifact.read_entry(name) for name in entries} == entries


def test_engines_are_read_side_by_side(tmp_path: Path) -> None:
    engines = [plan(bytes([i]) * 5_000_000) for i in range(2)]
    with open_artifact(Handmade(engines=engines).write(tmp_path / "a.pt2")) as artifact:
        pairs = zip(*(engine.chunks() for engine in artifact.engines), strict=True)
        first, second = (b"".join(chunks) for chunks in zip(*pairs, strict=True))
        assert [first, second] == engines
        check_structure(artifact)


def test_an_engine_in_a_file_is_written_like_one_in_memory(tmp_path: Path) -> None:
    (tmp_path / "engine").write_bytes(plan(b"x"))
    source = engine_from_file(tmp_path / "engine")
    assert (source.size, b"".join(source.chunks())) == (65, plan(b"x"))


def test_an_artifact_is_usable_without_with(tmp_path: Path) -> None:
    artifact = open_artifact(Handmade().write(tmp_path / "a.pt2"))
    assert artifact.engines[0].info.input_names == ("x",)
    assert artifact.engines[0].plan_header().release == "1.6.1.120"
    artifact.close()


def test_a_path_that_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path, "nul\0byte"):
        with pytest.raises(UsageError):
            open_artifact(path)


def manifest_text(tmp_path: Path) -> bytes:
    with open_artifact(Handmade().write(tmp_path / "a.pt2")) as artifact:
        return artifact.container.read(MANIFEST_ENTRY)


def test_a_manifest_goes_through_its_text_unchanged(tmp_path: Path) -> None:
    manifest = parse_manifest(manifest_text(tmp_path), where="test")
    assert parse_manifest(manifest.to_json().encode(), where="test") == manifest


def test_every_member_of_a_manifest_is_needed_and_no_other_is_taken(tmp_path: Path) -> None:
    document = json.loads(manifest_text(tmp_path))
    for name in Manifest.field_specs().keys() - SINCE.keys():
        less = {key: value for key, value in document.items() if key != name}
        for wrong in (less, {**document, name: object.__name__}, {**document, f"{name}_": 1}):
            with pytest.raises(MalformedArtifactError):
                parse_manifest(json.dumps(wrong).encode(), where="test")


def test_a_newer_manifest_asks_for_a_newer_trtcross() -> None:
    with pytest.raises(MalformedArtifactError, match="install a newer trtcross"):
        parse_manifest(b'{"schema_version": 3, "whatever": true}', where="test")


@pytest.mark.parametrize("version", [1, 2])
def test_the_shipped_schemas_are_the_models_own(version: int) -> None:
    import toolchain
    from toolchain.manifest import json_schema_text

    shipped = Path(toolchain.__file__).parent / "schema" / f"manifest-{version}.json"
    assert shipped.read_text(encoding="utf-8") == json_schema_text(version)
    assert "schema_version" in json.loads(json_schema_text(version))["required"]


def test_version_2_is_written_only_for_what_version_1_cannot_say(tmp_path: Path) -> None:
    manifest = parse_manifest(manifest_text(tmp_path), where="test")
    plain = json.loads(manifest.to_json())
    assert plain["schema_version"] == 1 and not plain.keys() & SINCE.keys()
    guarded = manifest.model_copy(update={"guards": ["x.0 == 1"]})
    document = json.loads(guarded.to_json())
    assert (document["schema_version"], document["guards"]) == (2, ["x.0 == 1"])
    assert parse_manifest(guarded.to_json().encode(), where="test") == guarded
    assert guarded.model_copy(update={"guards": []}).to_json() == manifest.to_json()


def test_a_manifest_of_version_1_has_no_field_of_version_2(tmp_path: Path) -> None:
    document = json.loads(manifest_text(tmp_path))
    for name in SINCE:
        with pytest.raises(MalformedArtifactError, match=f"schema version 1 has no field '{name}'"):
            parse_manifest(json.dumps({**document, name: []}).encode(), where="test")


def test_converting_changes_the_platform_and_no_engine(tmp_path: Path) -> None:
    source, out = Handmade(engines=[plan(b"a"), plan(b"b")]).write(tmp_path / "a.pt2"), tmp_path / "b.pt2"
    with open_artifact(source) as artifact:
        convert_artifact(artifact, out, Platform.LINUX_X86_64)
    with open_artifact(out) as converted:
        converted.check_integrity()
        check_structure(converted)
        assert [engine.read() for engine in converted.engines] == [plan(b"a"), plan(b"b")]
        assert converted.engines[1].info.target_platform == "linux_x86_64"
        assert converted.manifest.install[0] == "python3.11 -m venv .venv"


def test_nothing_is_converted_onto_itself(tmp_path: Path) -> None:
    path = Handmade().write(tmp_path / "a.pt2")
    before = path.read_bytes()
    with open_artifact(path) as artifact, pytest.raises(UsageError, match="would replace another file"):
        convert_artifact(artifact, path, Platform.LINUX_X86_64)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_engines_of_tensorrt_stay_on_their_platform(tmp_path: Path) -> None:
    path = Handmade(edit_manifest=lambda m: m["target"].update(backend="tensorrt")).write(tmp_path / "a.pt2")
    with open_artifact(path) as artifact, pytest.raises(IncompatibleError, match="run only on windows-x86_64"):
        convert_artifact(artifact, tmp_path / "b.pt2", Platform.LINUX_X86_64)
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_artifact_is_not_converted(tmp_path: Path) -> None:
    path = Handmade(edit_manifest=lambda m: m["files"]["byteorder"].update(sha256="0" * 64)).write(tmp_path / "a.pt2")
    with open_artifact(path) as artifact, pytest.raises(MalformedArtifactError, match="digest"):
        convert_artifact(artifact, tmp_path / "b.pt2", Platform.LINUX_X86_64)
    assert list(tmp_path.iterdir()) == [path]


def test_the_install_lines_name_the_index_of_torchs_cuda_build(tmp_path: Path) -> None:
    manifest = parse_manifest(manifest_text(tmp_path), where="test")
    lines = install_lines(manifest.target, manifest.producer)
    assert lines[0] == "py -3.11 -m venv .venv"
    assert lines[1].endswith("torch==2.14.1 --index-url https://download.pytorch.org/whl/cu130")
    assert lines[2].endswith("torch-tensorrt-rtx==2.14.0 tensorrt-rtx==1.6.1.120")
    assert len(lines) == 4
    *both, comment, last = install_lines(manifest.target, manifest.producer, without_torch=True)
    assert both == lines and comment.startswith("# or without PyTorch")
    assert "torch" not in last.replace("trtcross", "") and "tensorrt-rtx==1.6.1.120 cuda-bindings numpy" in last


def test_an_entry_of_torchs_beyond_4_gib_is_read_and_one_that_says_another_place_is_not() -> None:
    """The bytes of the header are those that torch 2.14 wrote after 4 GiB of other entries."""
    name, place = b"model/data/weights/weight_9", 4294967568
    padding = bytes.fromhex("464203005a5a5a")

    def header(told: int) -> bytes:
        extra = struct.pack("<2HQ", 1, 8, told) + padding
        return struct.pack("<4s5H3L2H", b"PK\3\4", 0, 0x808, 0, 0, 0, 0, 0, 0, len(name), len(extra)) + name + extra

    record = zip_records.ZipRecord(name.decode(), crc=7, size=100, header_offset=place, flags=0x808)
    raw = header(place)
    assert zip_records.local_length(record, raw[: zip_records.LOCAL_SIZE]) == len(raw)
    zip_records.check_local(record, raw)
    for wrong in (place + 1, 100):
        with pytest.raises(zip_records.ZipError, match="different size"):
            zip_records.check_local(record, header(wrong))
    near = zip_records.ZipRecord(name.decode(), crc=7, size=100, header_offset=64, flags=0x808)
    with pytest.raises(zip_records.ZipError, match="different size"):
        zip_records.check_local(near, header(64))
