"""Errors, targets, plan headers and engine info."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.handmade import PLAN_HEADER, engine_info, plan
from toolchain import errors
from toolchain.engine.info import (
    FIELD_COUNT,
    FIELDS,
    AliasedIO,
    EngineInfo,
    RuntimeDevice,
    check_fields,
    join_binding_names,
)
from toolchain.engine.plan_header import parse_plan_header
from toolchain.engine.releases import RELEASES
from toolchain.errors import BuildFailedError, MalformedArtifactError, TrtcrossError, UsageError, error_from_json
from toolchain.targets import Backend, ComputeCapability, Platform, host_platform

EXIT_CODES = {
    "TrtcrossError": 1,
    "UsageError": 2,
    "IncompatibleError": 3,
    "MalformedArtifactError": 4,
    "UntrustedError": 5,
    "WrongNumbersError": 6,
    "BuildFailedError": 7,
    "MissingComponentError": 8,
}


@pytest.mark.parametrize(("name", "code"), EXIT_CODES.items())
def test_an_error_survives_the_way_through_json(name: str, code: int) -> None:
    error = getattr(errors, name)("broken", where="here", remedy="fix it")
    back = error_from_json(error.to_json())
    assert (type(back), back.exit_code, str(back)) == (type(error), code, str(error))
    assert str(error) == "broken\n  where: here\n  what to do: fix it"


def test_an_error_of_an_unknown_kind_is_a_bug() -> None:
    assert error_from_json({"kind": "SystemExit", "problem": "x"}).exit_code == 1


def test_a_files_words_do_not_steer_the_terminal() -> None:
    assert str(TrtcrossError("a\x1b]0;owned\x07b\u202ec")) == "a\\x1b]0;owned\\x07b\\u202ec"


def test_platforms() -> None:
    assert Platform.parse("windows-x86_64").runtime_name == "windows_x86_64"
    assert host_platform().partition("-")[0] in ("linux", "windows", "darwin")
    with pytest.raises(UsageError, match="use one of: windows-x86_64, linux-x86_64"):
        Platform.parse("windows")


@pytest.mark.parametrize(("text", "major", "minor"), [("sm_75", 7, 5), ("sm_120", 12, 0)])
def test_compute_capabilities(text: str, major: int, minor: int) -> None:
    capability = ComputeCapability.parse(text)
    assert (capability, str(capability)) == (ComputeCapability(major, minor), text)


@pytest.mark.parametrize("text", ["8.6.1", "86", "sm_8", "sm_\uff18\uff16", "sm_86\n", ""])
def test_what_is_no_compute_capability(text: str) -> None:
    with pytest.raises(UsageError):
        ComputeCapability.parse(text)


def test_the_header_of_a_real_plan() -> None:
    header = parse_plan_header(PLAN_HEADER)
    assert (header.backend, header.size, header.release) == (Backend.TENSORRT_RTX, 47_147_876, "1.6.1.120")
    assert list(map(str, header.capabilities)) == ["sm_80", "sm_86", "sm_89", "sm_120", "sm_121"]


def test_of_tensorrts_plan_only_the_kind_is_known() -> None:
    header = parse_plan_header(b"ftrt" + bytes(60))
    assert (header.backend, header.size, header.release, header.capabilities) == (Backend.TENSORRT, None, None, ())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PLAN_HEADER[:63],
        b"vtrx" + PLAN_HEADER[4:],
        PLAN_HEADER[:28] + b"\0" + PLAN_HEADER[29:],
        b"\x7fELF" + bytes(60),
    ],
    ids=["empty", "truncated", "magic", "second magic", "other"],
)
def test_what_is_no_plan(data: bytes) -> None:
    with pytest.raises(MalformedArtifactError):
        parse_plan_header(data)


@given(st.binary(max_size=80))
def test_any_header_is_read_or_refused(data: bytes) -> None:
    for head in (data, plan()[:28] + data):
        try:
            parse_plan_header(head)
        except MalformedArtifactError:
            continue


NAMES = st.text(st.characters(exclude_characters="%@", exclude_categories=["Cs"]), min_size=1)
INFOS = st.builds(
    EngineInfo,
    name=NAMES,
    device=st.builds(
        RuntimeDevice,
        index=st.integers(-1, 99),
        capability=st.builds(ComputeCapability, st.integers(0, 99), st.integers(0, 9)),
        kind=st.integers(0, 1),
        name=NAMES,
    ),
    input_names=st.lists(NAMES).map(tuple),
    output_names=st.lists(NAMES).map(tuple),
    hardware_compatible=st.booleans(),
    metadata=st.text(),
    target_platform=NAMES,
    requires_output_allocator=st.booleans(),
    dynamic_resources=st.booleans(),
    requires_native_multidevice=st.booleans(),
    aliased_io=st.lists(st.builds(AliasedIO, NAMES, NAMES, NAMES)).map(tuple),
    abi_version=st.sampled_from(sorted(FIELD_COUNT)),
)


@given(INFOS)
def test_engine_info_goes_through_its_fields_unchanged(info: EngineInfo) -> None:
    fields = info.fields("engine")
    back = EngineInfo.parse(fields, where="test")
    assert back.fields("engine") == fields
    assert len(fields) == FIELD_COUNT[info.abi_version]
    if info.abi_version == max(FIELD_COUNT):
        assert back == info


@given(st.lists(st.text() | st.integers() | st.none(), max_size=14))
def test_any_field_list_is_read_or_refused(fields: list[object]) -> None:
    for candidate in (fields, ["10", *fields], ["10", "n", "0%8%0%0%gpu", *fields]):
        try:
            EngineInfo.parse(candidate, where="test")
        except MalformedArtifactError:
            continue


@pytest.mark.parametrize("abi", sorted(FIELD_COUNT))
@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_number_of_fields_is_refused(abi: int, change: int) -> None:
    count = FIELD_COUNT[abi] + change
    with pytest.raises(MalformedArtifactError, match=f"{FIELD_COUNT[abi]} fields, not {count}"):
        check_fields([str(abi), *["0"] * (count - 1)], where="test")


@pytest.mark.parametrize("abi", ["5", "11", "010", " 10", "", "x", "9" * 5000, 10, None])
def test_an_unknown_abi_is_refused(abi: object) -> None:
    with pytest.raises(MalformedArtifactError, match="unknown"):
        check_fields([abi, *["0"] * 12], where="test")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hardware_compatible", "2"),
        ("requires_output_allocator", "true"),
        ("device", "0%8%0%0"),
        ("device", "0%8%6%0%a%b"),
        ("device", "zero%8%6%0%gpu"),
        ("device", f"{'9' * 5000}%8%6%0%gpu"),
        ("input_binding_names", "a%%b"),
        ("output_binding_names", "a@b"),
        ("aliased_io", "a@b"),
    ],
)
def test_a_field_of_the_wrong_form_is_refused(field: str, value: str) -> None:
    fields = engine_info().fields("engine")
    fields[FIELDS.index(field)] = value
    with pytest.raises(MalformedArtifactError):
        EngineInfo.parse(fields, where="test")


@pytest.mark.parametrize("name", ["a%b", "a@b"])
def test_a_separator_in_a_binding_name_fails_the_build(name: str) -> None:
    with pytest.raises(BuildFailedError, match="separators"):
        join_binding_names(["x", name])


def test_every_release_has_a_known_abi() -> None:
    assert {release.abi for release in RELEASES.values()} == set(FIELD_COUNT)


def test_compute_capabilities_are_read_as_people_write_them() -> None:
    for text in ("sm_89", "sm89", "SM_89", "8.9"):
        assert str(ComputeCapability.parse(text)) == "sm_89"
    assert str(ComputeCapability.parse("12.0")) == str(ComputeCapability.parse("sm120")) == "sm_120"


GPU_NAMES = {
    "2080 Ti": "sm_75", "T4": "sm_75", "RTX 3060": "sm_86", "3090": "sm_86", "A6000": "sm_86", "A10G": "sm_86",
    "A100-80GB": "sm_80", "4090": "sm_89", "NVIDIA GeForce RTX 4060 Ti": "sm_89", "L40S": "sm_89",
    "RTX 6000 Ada": "sm_89", "H100": "sm_90", "rtx5090": "sm_120",
}  # fmt: skip


@pytest.mark.parametrize("name", GPU_NAMES)
def test_the_remedy_for_a_gpus_name_is_its_compute_capability(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        ComputeCapability.parse(name)
    assert f"--gpu {GPU_NAMES[name]}" in str(caught.value.remedy)


@pytest.mark.parametrize("text", ["", "sm_", "sm_8", "89", "8.95", "sm_8.9", "ada", "1090"])
def test_what_is_no_gpu_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a GPU compute capability") as caught:
        ComputeCapability.parse(text)
    assert "nvidia-smi" in str(caught.value.remedy)
