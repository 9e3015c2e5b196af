"""Artifacts of schema 1, made at revision 5d75a28: every later revision opens, verifies and converts them.

A failing test has found a broken promise of ``docs/ship/compatibility.md``. The fixtures stay as they are; the code
must change. Only public names and the command line are used, so that these tests need no changes either.
"""

from __future__ import annotations

import hashlib
import json
import runpy
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Trtcross
from toolchain import open_artifact
from windows_side import check

FIXTURES = Path(__file__).parent / "schema1"
OURS = ("static", "dynamic", "mixed", "kv_cache", "fp16", "half")
ALL = (*OURS, "foreign")
SCHEMA_SHA256 = "a80e339c99c1316b8c8ecac426c4d3fd03cfa4de7cec6b4368ed37f0296eab1f"
MANIFEST = "artifact/extra/trtcross/manifest.json"
GOLDEN = "artifact/trtcross/golden.safetensors"

BY_KEY = ("static", ["--signer", FIXTURES / "build.pub"])
BY_CERTIFICATE = ("fp16", ["--signer", "releases@example.com", "--signer-ca", FIXTURES / "ca.crt"])
SIGNED = [pytest.param(*BY_KEY, id="key"), pytest.param(*BY_CERTIFICATE, id="certificate")]

Command = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``python -m toolchain VERB ... --json`` in this process; returns its exit code and its document."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", ["trtcross", *map(str, arguments), "--json"])
        code = 0
        try:
            runpy.run_module("toolchain", run_name="__main__")
        except SystemExit as end:
            code = int(end.code or 0)
        return code, json.loads(capsys.readouterr().out)

    return run


def artifact(name: str) -> Path:
    return FIXTURES / f"{name}.pt2"


def facts(name: str) -> dict[str, Any]:
    """Returns the manifest that ``inspect --json`` printed at 5d75a28; a foreign file's lacks what its reader adds."""
    document: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())
    return document


def stored_manifest(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as file:
        document: dict[str, Any] = json.loads(file.read(MANIFEST))
    return document


def lost(expected: Any, found: Any, place: str = "manifest") -> Iterator[str]:
    """Yields the places at which ``found`` lacks or contradicts something in ``expected``; it may have more."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            if key in found:
                yield from lost(value, found[key], f"{place}.{key}")
            else:
                yield f"{place}.{key} is missing"
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from lost(one, other, f"{place}.{index}")
    elif expected != found:
        yield f"{place} was {expected!r} and is {found!r}"


def require_valid(manifest: dict[str, Any]) -> None:
    """Validates a manifest by the shipped schema of version 1."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(resources.files("toolchain").joinpath("schema/manifest-1.json").read_bytes())
    jsonschema.Draft202012Validator(schema).validate(manifest)


def test_the_fixtures_are_those_of_revision_5d75a28() -> None:
    lines = [line.split() for line in (FIXTURES / "SHA256SUMS").read_text().splitlines()]
    listed = {name: digest for digest, name in lines}
    found = {path.name: path for path in FIXTURES.iterdir() if path.name not in ("README.md", "SHA256SUMS")}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()} == listed
    assert {path.stem for path in found.values() if path.suffix == ".pt2"} == set(ALL)


def test_the_schema_of_version_1_never_changes() -> None:
    shipped = resources.files("toolchain").joinpath("schema/manifest-1.json").read_bytes()
    assert shipped == (FIXTURES / "manifest-1.json").read_bytes()
    assert hashlib.sha256(shipped).hexdigest() == SCHEMA_SHA256


@pytest.mark.parametrize("name", OURS)
def test_its_manifest_is_valid(name: str) -> None:
    require_valid(stored_manifest(artifact(name)))


@pytest.mark.parametrize("name", ALL)
def test_it_opens_and_its_engines_read(name: str) -> None:
    with open_artifact(artifact(name)) as opened:
        read = [engine.read() for engine in opened.engines]
        streamed = [engine.open().read() for engine in opened.engines]
    assert read == streamed
    assert [(hashlib.sha256(data).hexdigest(), len(data)) for data in read] == [
        (engine["sha256"], engine["size"]) for engine in facts(name)["engines"]
    ]


@pytest.mark.parametrize("name", ALL)
def test_inspect_reports_what_it_did(command: Command, name: str) -> None:
    code, document = command("inspect", artifact(name), "--digests")
    assert (code, document["version"], document["verb"], document["ok"]) == (0, 1, "inspect", True)
    assert (document["foreign"], document["plan_headers_agree"]) == (name == "foreign", True)
    assert list(lost(facts(name), document["manifest"])) == []


@pytest.mark.parametrize("name", ALL)
def test_it_verifies_to_structure(command: Command, name: str) -> None:
    code, document = command("verify", artifact(name), "--level", "structure")
    assert code == 0, document
    assert [(step["level"], step["passed"]) for step in document["levels"]] == [
        ("integrity", True),
        ("structure", True),
    ]


@pytest.mark.parametrize("name", ALL)
def test_it_converts_to_linux_and_back(command: Command, name: str, tmp_path: Path) -> None:
    source, before = artifact(name), facts(name)
    for platform in ("linux-x86_64", "windows-x86_64"):
        out = tmp_path / f"{platform}.pt2"
        code, document = command("convert", source, "--target", platform, "-o", out)
        assert code == 0, document
        assert document["engines"] == [engine["sha256"] for engine in before["engines"]]
        code, document = command("verify", out, "--level", "structure")
        assert code == 0, document
        manifest = stored_manifest(out)
        assert (manifest["schema_version"], manifest["target"]["platform"]) == (1, platform)
        require_valid(manifest)
        kept = ("model", "call", "inputs", "outputs", "fallback", "coverage", "golden")
        assert {part: manifest[part] for part in kept} == {part: before[part] for part in kept}
        source = out


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"schema_version": 1', b'"schema_version": 9', "newer trtcross"),
        (b'"stock_readable"', b'"stock_readible"', "build it again"),
        (b'"sm_80"', b'"gpu80"', "build it again"),
    ],
    ids=["newer version", "unknown field", "unknown value"],
)
def test_what_a_reader_does_not_know_is_refused_with_a_remedy(
    command: Command, old: bytes, new: bytes, words: str, tmp_path: Path
) -> None:
    data, path = artifact("static").read_bytes(), tmp_path / "unknown.pt2"
    with zipfile.ZipFile(artifact("static")) as file:
        manifest = file.read(MANIFEST)
    changed = manifest.replace(old, new)
    assert len(changed) == len(manifest) and changed != manifest
    crc, changed_crc = (zlib.crc32(text).to_bytes(4, "little") for text in (manifest, changed))
    path.write_bytes(data.replace(manifest, changed).replace(crc, changed_crc))
    for verb in (["inspect"], ["check"], ["verify", "--level", "structure"]):
        code, document = command(*verb, path)
        assert code == 4, document
        error = document.get("error") or document["levels"][-1]["error"]
        assert words in error["remedy"]


@pytest.mark.parametrize("name", OURS)
def test_its_golden_io_reads(name: str) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    with zipfile.ZipFile(artifact(name)) as file:
        tensors = numpy.load(file.read(GOLDEN))
    told = facts(name)
    expected = {
        f"{sample}.{kind}.{index}": value["dtype"]
        for sample in range(told["golden"]["samples"])
        for kind in ("input", "output")
        for index, value in enumerate(told[f"{kind}s"])
    }
    assert {key: str(tensor.dtype) for key, tensor in tensors.items()} == expected
    assert all(tensor.any() for tensor in tensors.values())


@pytest.mark.parametrize("name", ALL)
def test_check_answers(command: Command, name: str) -> None:
    code, document = command("check", artifact(name))
    requirements = {item["name"]: item for item in document["requirements"]}
    met = all(item["state"] == "met" for item in requirements.values())
    assert code == (0 if met else 3), document
    assert requirements["platform"]["needed"] == "windows-x86_64"
    assert all(gpu in requirements["gpu"]["needed"] for gpu in facts(name)["target"]["compute_capabilities"])
    assert "1.6.1.120" in requirements["runtime"]["needed"]
    with open_artifact(artifact(name)) as opened:
        assert {item.name for item in check(opened)} <= set(requirements)


@pytest.mark.parametrize(("name", "signer"), SIGNED)
def test_its_signature_verifies(command: Command, name: str, signer: list[object]) -> None:
    pytest.importorskip("model_signing")
    code, document = command("verify", artifact(name), "--level", "integrity", *signer)
    assert code == 0, document
    assert [step["level"] for step in document["levels"]] == ["signature", "integrity"]
    code, document = command("check", artifact(name), *signer)
    assert code in (0, 3), document


@pytest.mark.parametrize(("name", "signer"), SIGNED)
def test_somebody_else_s_signature_is_refused(command: Command, name: str, signer: list[object]) -> None:
    pytest.importorskip("model_signing")
    [other] = [options for signed, options in (BY_KEY, BY_CERTIFICATE) if signed != name]
    assert command("verify", artifact(name), "--level", "integrity", *other)[0] == 5


@pytest.mark.parametrize("part", ["signature", "manifest", "golden", "engine"])
@pytest.mark.parametrize(("name", "signer"), SIGNED)
def test_a_changed_byte_is_refused(
    command: Command, name: str, signer: list[object], part: str, tmp_path: Path
) -> None:
    pytest.importorskip("model_signing")
    copy, signature = (Path(shutil.copy(path, tmp_path)) for path in (artifact(name), f"{artifact(name)}.sig"))
    assert command("verify", copy, "--level", "integrity", *signer)[0] == 0
    target = signature if part == "signature" else copy
    data = bytearray(target.read_bytes())
    data[_place(name, part, bytes(data))] ^= 1
    target.write_bytes(data)
    assert command("verify", copy, "--level", "integrity", *signer)[0] == (5 if part == "signature" else 4)


def _place(name: str, part: str, data: bytes) -> int:
    """Returns the place of a byte of a part, in the signature or the artifact."""
    if part == "signature":
        return data.index(b'"payload"') + 40
    if part == "engine":
        return data.index(b"dnRydA") + 200  # a plan's magic in base64
    with zipfile.ZipFile(artifact(name)) as file:
        entry = MANIFEST if part == "manifest" else GOLDEN
        return data.index(file.read(entry)) + file.getinfo(entry).file_size // 2


@pytest.mark.parametrize(("name", "signer"), SIGNED)
def test_a_signature_is_not_of_what_was_converted(
    command: Command, name: str, signer: list[object], tmp_path: Path
) -> None:
    pytest.importorskip("model_signing")
    out = tmp_path / "out.pt2"
    assert command("convert", artifact(name), "--target", "linux-x86_64", "-o", out)[0] == 0
    shutil.copy(f"{artifact(name)}.sig", f"{out}.sig")
    code, document = command("verify", out, "--level", "integrity", *signer)
    assert (code, document["error"]["kind"]) == (5, "UntrustedError")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ALL)
def test_its_numbers_are_right(trtcross: Trtcross, name: str, tmp_path: Path) -> None:
    """The test needs a GPU and the release of TensorRT-RTX that built the artifact; no other runs its engines."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    release = facts(name)["target"]["runtime"]
    if (here := metadata.version("tensorrt-rtx")) != release:
        pytest.skip(f"its engines run in TensorRT-RTX {release} alone, and here is {here}")
    out = tmp_path / "here.pt2"
    assert trtcross("convert", artifact(name), "--target", "linux-x86_64", "-o", out).returncode == 0
    level = "numbers" if facts(name)["golden"] else "load"
    done = trtcross("verify", out, "--level", level, "--allow-unlisted-gpu")
    assert done.returncode == 0, done.stderr
