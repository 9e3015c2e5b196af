"""Our table of engine info agrees with the sources of every Torch-TensorRT release that it names."""

from __future__ import annotations

import base64
import contextlib
import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from toolchain.engine import info as engine_info
from toolchain.engine.info import FIELD_COUNT, FIELDS, AliasedIO, EngineInfo, RuntimeDevice
from toolchain.engine.releases import RELEASES as TABLE
from toolchain.targets import Backend, ComputeCapability, Platform

from .layout import (
    HEADER,
    UPSTREAM_NAMES,
    Layout,
    cpp_layout,
    operator_parameters,
    python_layout,
    upstream_function,
)
from .sources import Sources
from .wheels import Wheel, locked_wheels

RELEASES = [wheel for wheel in locked_wheels() if wheel.name.startswith("torch-tensorrt")]
ON_LINUX = [wheel for wheel in RELEASES if wheel.system == "linux"]
CURRENT = [wheel for wheel in RELEASES if TABLE[wheel.release].abi == engine_info.CURRENT_ABI]

# Torch-TensorRT 2.11 added a field, but not the operator's parameter for it. torch.export.save writes as many arguments
# as the operator has parameters, so a file of 2.11 has 10 fields and states the ABI version 8.
OPERATOR_LACKS = {"2.11": ("resource_allocation_strategy",)}
ENGINE_IS_TENSOR_SINCE = (2, 13)

INFO = EngineInfo(
    name="engine",
    device=RuntimeDevice(0, ComputeCapability(8, 6), 0, "NVIDIA sm_86"),
    input_names=("x", "cache"),
    output_names=("y", "new_cache"),
    hardware_compatible=True,
    metadata="",
    target_platform=Platform.WINDOWS_X86_64.runtime_name,
    aliased_io=(AliasedIO("new_cache", "cache", "kv_cache_update"), AliasedIO("y", "x", "user")),
)

every_release = pytest.mark.parametrize("wheel", RELEASES, ids=str)
every_linux_release = pytest.mark.parametrize("wheel", ON_LINUX, ids=str)
current_releases = pytest.mark.parametrize("wheel", CURRENT, ids=str)


def our_layout(release: str) -> Layout:
    abi = TABLE[release].abi
    return Layout(abi, tuple(UPSTREAM_NAMES[name][0] for name in FIELDS[: FIELD_COUNT[abi]]))


def our_operator(release: str) -> dict[str, str]:
    names = [name for name in FIELDS[: FIELD_COUNT[TABLE[release].abi]] if name not in OPERATOR_LACKS.get(release, ())]
    major, minor = map(int, release.split("."))
    types = {"engine": "Tensor" if (major, minor) >= ENGINE_IS_TENSOR_SINCE else "str"}
    return {UPSTREAM_NAMES[name][1]: types.get(name, "str") for name in names}


def test_every_release_of_the_table_is_locked_and_none_else() -> None:
    assert {wheel.release for wheel in ON_LINUX if wheel.name == "torch-tensorrt"} == set(TABLE)
    assert {wheel.release for wheel in ON_LINUX if wheel.name == "torch-tensorrt-rtx"} == {
        release for release in TABLE if tuple(map(int, release.split("."))) >= (2, 11)
    }


def test_every_abi_version_is_some_releases() -> None:
    assert set(FIELD_COUNT) == {known.abi for known in TABLE.values()}
    assert max(FIELD_COUNT) == engine_info.CURRENT_ABI
    assert max(FIELD_COUNT.values()) == len(FIELDS)


@every_linux_release
def test_cpp_layout(wheel: Wheel, sources: dict[Wheel, Sources]) -> None:
    assert cpp_layout(sources[wheel]) == our_layout(wheel.release)


@every_release
def test_python_layout(wheel: Wheel, sources: dict[Wheel, Sources]) -> None:
    ours = our_layout(wheel.release)
    theirs = python_layout(sources[wheel])
    assert theirs.indices == ours.indices
    assert theirs.abi_version in (None, ours.abi_version)


@every_release
def test_placeholder_operator(wheel: Wheel, sources: dict[Wheel, Sources]) -> None:
    assert list(operator_parameters(sources[wheel]).items()) == list(our_operator(wheel.release).items())


@current_releases
def test_the_arguments_that_we_write_are_the_operators(wheel: Wheel, sources: dict[Wheel, Sources]) -> None:
    assert tuple(operator_parameters(sources[wheel])) == engine_info.ARGUMENTS


@every_linux_release
def test_each_wheel_asks_for_the_tensorrt_of_our_table(wheel: Wheel, wheel_files: dict[Wheel, Path]) -> None:
    archive = zipfile.ZipFile(wheel_files[wheel])
    [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    text = archive.read(name).decode()
    backend = Backend.TENSORRT_RTX if wheel.name.endswith("-rtx") else Backend.TENSORRT
    package = "tensorrt_rtx" if backend is Backend.TENSORRT_RTX else "tensorrt(?:-cu13)?"
    asked = re.findall(rf"^Requires-Dist: {package} ?\(?[^;\n]*>=([0-9]+\.[0-9]+)\.", text, re.MULTILINE)
    assert asked[0] == TABLE[wheel.release].runtimes[backend]
    torch = re.findall(r"^Requires-Dist: torch ?\(?([<>=0-9.,]+)", text, re.MULTILINE)
    assert SpecifierSet(torch[0]).contains(f"{wheel.release}.0")


@current_releases
@pytest.mark.parametrize("text", [INFO.fields("")[12], ""], ids=["two", "none"])
def test_upstream_reads_our_aliased_io(wheel: Wheel, sources: dict[Wheel, Sources], text: str) -> None:
    read = upstream_function(sources[wheel], "_TorchTensorRTModule", "deserialize_aliased_io")
    expected = {alias.output: (alias.input, alias.kind) for alias in INFO.aliased_io}
    assert read(text) == (expected if text else {})


@current_releases
def test_we_write_aliased_io_as_upstream_does(wheel: Wheel, sources: dict[Wheel, Sources]) -> None:
    write = upstream_function(sources[wheel], "_TorchTensorRTModule", "serialize_aliased_io")
    assert INFO.fields("")[12] == write({alias.output: (alias.input, alias.kind) for alias in INFO.aliased_io})


@current_releases
@pytest.mark.parametrize("names", [(), ("x",), ("x", "cache")], ids=len)
def test_we_join_binding_names_as_upstream_does(
    wheel: Wheel, sources: dict[Wheel, Sources], names: Sequence[str]
) -> None:
    write, read = (
        upstream_function(sources[wheel], "_serialized_engine_layout", f"{verb}_binding_names")
        for verb in ("serialize", "deserialize")
    )
    joined = engine_info.join_binding_names(names)
    assert joined == write(list(names))
    assert read(joined) == list(names)


@current_releases
def test_upstream_reads_our_device(wheel: Wheel, sources: dict[Wheel, Sources]) -> None:
    read = upstream_function(sources[wheel], "_serialized_engine_layout", "parse_device_info")
    assert read(str(INFO.device)) == {"id": 0, "major": 8, "minor": 6, "device_type": 0, "name": "NVIDIA sm_86"}


@current_releases
@pytest.mark.parametrize("platform", Platform, ids=str)
def test_platforms_are_spelled_as_upstream_does(
    wheel: Wheel, sources: dict[Wheel, Sources], platform: Platform
) -> None:
    text = sources[wheel].read("torch_tensorrt/_enums.py") or ""
    body = text.partition("def _to_serialized_platform")[2].partition("def ")[0]
    assert platform.runtime_name in re.findall(r'Platform\.\w+: "(\w+)"', body)


@current_releases
def test_upstreams_fake_kernel_reads_our_metadata(wheel: Wheel, sources: dict[Wheel, Sources]) -> None:
    torch = pytest.importorskip("torch")
    from linux_side.lowering.engine_metadata import encode_metadata

    kernel = upstream_function(
        sources[wheel], "meta_ops.register_meta_ops", "_apply_symbolic_shape_expressions", torch=torch
    )
    graph = torch.fx.Graph()
    nodes = [graph.placeholder(name) for name in ("x", "size")]
    nodes[0].meta["val"] = torch.empty(2, 3, dtype=torch.float16)
    nodes[1].meta["val"] = 4
    graph.output(tuple(nodes))
    metadata = pickle.loads(base64.b64decode(encode_metadata(torch.fx.GraphModule({}, graph))))
    for mode in (contextlib.nullcontext(), torch._subclasses.FakeTensorMode()):
        with mode:
            inputs = [torch.empty(2, 3, dtype=torch.float16), torch.empty((), dtype=torch.int64)]
        outputs = kernel(inputs, metadata["inout_symexprs"])
        assert [(o.shape, o.dtype) for o in outputs] == [(i.shape, i.dtype) for i in inputs]


@every_linux_release
def test_a_changed_header_is_seen(wheel: Wheel, sources: dict[Wheel, Sources]) -> None:
    swapped = sources[wheel].edited(HEADER, "  NAME_IDX,\n  DEVICE_IDX,\n", "  DEVICE_IDX,\n  NAME_IDX,\n")
    assert cpp_layout(swapped) != our_layout(wheel.release)
    longer = sources[wheel].edited(HEADER, "  SERIALIZATION_LEN", "  NEW_IDX,\n  SERIALIZATION_LEN")
    assert cpp_layout(longer) != our_layout(wheel.release)


@pytest.mark.parametrize("wheel", RELEASES, ids=str)
def test_the_runtime_library_is_where_we_load_it_from(wheel: Wheel, wheel_files: dict[Wheel, Path]) -> None:
    source = Path(__file__).parents[2] / "windows_side" / "loader" / "runtime_library.py"
    suffix = ".dll" if wheel.system == "windows" else ".so"
    (library,) = re.findall(rf'"(lib/\w+\{suffix})"', source.read_text("utf-8"))
    assert f"torch_tensorrt/{library}" in zipfile.ZipFile(wheel_files[wheel]).namelist()
