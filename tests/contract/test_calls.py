"""Our calls of Torch-TensorRT and TensorRT fit the sources of the releases that pyproject.toml pins."""

from __future__ import annotations

import ast
import importlib
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from toolchain.engine.plan_header import CAPABILITY_BITS

from .calls import Use, misfits, uses_in
from .sources import Sources
from .wheels import Wheel, locked_wheels

REPOSITORY = Path(__file__).parents[2]
ROOT = REPOSITORY / "linux_side"
SHARED = (
    "upstream.py",
    "lowering/lower.py",
    "lowering/convert.py",
    "lowering/parts.py",
    "backends/base.py",
    "backends/streaming.py",
)
BACKENDS = {"torch-tensorrt": "backends/tensorrt.py", "torch-tensorrt-rtx": "backends/tensorrt_rtx.py"}
FOREIGN = {"torch_tensorrt", "tensorrt", "tensorrt_rtx"}

PINS = [
    Requirement(text)
    for text in re.findall(r'"(torch-tensorrt[^"]*)"', (REPOSITORY / "pyproject.toml").read_text("utf-8"))
]
RELEASES = [wheel for wheel in locked_wheels() if wheel.name in BACKENDS]
CLAIMED = [wheel for wheel in RELEASES if any(wheel.name == p.name and wheel.version in p.specifier for p in PINS)]
OLDER = [wheel for wheel in RELEASES if wheel not in CLAIMED]

claimed_releases = pytest.mark.parametrize("wheel", CLAIMED, ids=str)


def our_uses(wheel: Wheel, sources: Sources) -> list[Use]:
    return [use for name in (*SHARED, BACKENDS[wheel.name]) for use in uses_in(ROOT / name, sources, name)]


@pytest.fixture(scope="session")
def tensorrt() -> Any:
    """TensorRT-RTX's real bindings, which Torch-TensorRT-RTX imports as ``tensorrt``."""
    try:
        return importlib.import_module("tensorrt_rtx")
    except ImportError as error:
        pytest.skip(f"CONTRACT NOT CHECKED: TensorRT-RTX's Python bindings cannot be imported: {error}")


@pytest.fixture(scope="session")
def sources(wheel_files: dict[Wheel, Path], tensorrt: Any) -> dict[Wheel, Sources]:
    return {wheel: Sources.of_wheel(file, str(wheel), tensorrt) for wheel, file in wheel_files.items()}


@pytest.fixture(scope="session")
def rtx(sources: dict[Wheel, Sources]) -> Sources:
    return next(sources[w] for w in CLAIMED if w.name == "torch-tensorrt-rtx" and w.system == "linux")


def test_every_pin_has_its_wheels() -> None:
    assert {pin.name for pin in PINS} == set(BACKENDS)
    for pin in PINS:
        assert any(wheel.name == pin.name and wheel.version in pin.specifier for wheel in CLAIMED), pin


@claimed_releases
def test_our_calls_fit(wheel: Wheel, sources: dict[Wheel, Sources]) -> None:
    assert misfits(our_uses(wheel, sources[wheel])) == []


@pytest.mark.parametrize("wheel", OLDER, ids=str)
def test_releases_that_we_do_not_claim_have_misfits(wheel: Wheel, sources: dict[Wheel, Sources]) -> None:
    # These are real changes of upstream: 2.14 added inputs with several profiles. A release that fits could be claimed.
    assert misfits(our_uses(wheel, sources[wheel]))


def test_no_underscored_name_escapes_the_check(rtx: Sources) -> None:
    checked = {
        (u.place.partition(":")[0], u.text.rpartition(".")[2])
        for name in SHARED
        for u in uses_in(ROOT / name, rtx, name)
    }
    for name in SHARED:
        for attribute in _underscored(ast.parse((ROOT / name).read_text("utf-8"))):
            assert (name, attribute) in checked, f"{name} uses {attribute}, and calls.py does not know of what"


def _underscored(tree: ast.Module) -> Iterator[str]:
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        private = isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if private and node.attr not in own and ast.unparse(node) != "torch._ops":
            yield node.attr


def test_everything_imported_is_used_and_checked(rtx: Sources) -> None:
    uses = uses_in(ROOT / "upstream.py", rtx)
    imported = [use.text.rpartition(".")[2] for use in uses if use.text.startswith("import ")]
    texts = [use.text for use in uses if not use.text.startswith("import ")]
    assert len(imported) > 8
    # Called by the name of our subclass; a dictionary; not in its sources; a logger; a list and its element.
    passes = ("ATEN_POST_LOWERING_PASSES", "complex_lowering_pass")
    uncalled = ("TRTInterpreter", "DYNAMO_ATEN_CONVERTERS", "import tensorrt", "_LOGGER", *passes)
    for name in imported:
        if name not in uncalled:
            assert any(re.match(rf"{name}\b", text) for text in texts), name
    assert any(text.startswith("Interpreter(") for text in texts)


def test_foreign_packages_are_imported_in_these_files_only() -> None:
    allowed = {
        ROOT / name for name in ("upstream.py", "backends/monitor.py", "backends/streaming.py", *BACKENDS.values())
    }
    # It imports the whole package where its library does not load.
    allowed.add(REPOSITORY / "windows_side" / "loader" / "runtime_library.py")
    # TensorRT-RTX's own Python package, for sessions without torch.
    allowed.add(REPOSITORY / "windows_side" / "engines" / "engine.py")
    for folder in (ROOT, REPOSITORY / "toolchain", REPOSITORY / "windows_side"):
        for path in folder.rglob("*.py"):
            found = FOREIGN & set(_imports(ast.parse(path.read_text("utf-8"))))
            assert path in allowed or not found, f"{path} imports {found}"


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            yield from (a.value.split(".")[0] for a in node.args if isinstance(a, ast.Constant))


# Changes that upstream could make: a file, its text, the changed text, and what the failure must name.
CHANGES = {
    "a keyword is gone": (
        "dynamo/partitioning/_adjacency_partitioner.py",
        "    skip_fusion: bool = False,\n) -> Tuple",
        ") -> Tuple",
        ("partitioning.fast_partition(", "skip_fusion"),
    ),
    "a keyword is renamed": (
        "dynamo/partitioning/common.py",
        "    num_profiles: int",
        "    profile_count: int",
        ("construct_submodule_inputs(", "num_profiles"),
    ),
    "a positional parameter is gone": (
        "dynamo/lowering/_decompositions.py",
        "    use_distributed_mode_trace: bool = False,\n    use_fp32_acc",
        "    *, use_fp32_acc",
        ("get_decompositions(", "too many positional"),
    ),
    "a parameter is new and required": (
        "dynamo/conversion/_conversion.py",
        "def infer_module_output_dtypes(\n    module: torch.fx.GraphModule,",
        "def infer_module_output_dtypes(\n    module: torch.fx.GraphModule, policy: str,",
        ("infer_module_output_dtypes(", "policy"),
    ),
    "a setting is gone": (
        "dynamo/_settings.py",
        "    offload_module_to_cpu:",
        "    offload:",
        ("CompilationSettings(", "offload_module_to_cpu"),
    ),
    "a keyword that **kwargs takes is not read": (
        "_Device.py",
        '"gpu_id"',
        '"gpu"',
        ("Device(", "gpu_id"),
    ),
    "a function is renamed": (
        "dynamo/lowering/passes/_aten_lowering_pass.py",
        "def post_lowering(",
        "def lower_after(",
        ("import torch_tensorrt.dynamo.lowering.post_lowering", "post_lowering"),
    ),
    "a method is renamed": (
        "dynamo/conversion/_TRTInterpreter.py",
        "def _construct_trt_network_def(",
        "def _construct(",
        ("interpreter._construct_trt_network_def", "has no"),
    ),
    "a method has a new parameter": (
        "dynamo/conversion/_TRTInterpreter.py",
        "def _construct_trt_network_def(self)",
        "def _construct_trt_network_def(self, strict)",
        ("interpreter._construct_trt_network_def()", "strict"),
    ),
    "an overridden method differs": (
        "dynamo/conversion/_TRTInterpreter.py",
        "def output(self, target: str, args: Any, kwargs: Any)",
        "def output(self, node: Any)",
        ("def Interpreter.output", "node"),
    ),
    "an attribute is renamed": (
        "dynamo/conversion/_TRTInterpreter.py",
        "self._aliased_io:",
        "self._aliases:",
        ("interpreter._aliased_io", "has no"),
    ),
    "an attribute of the context is renamed": (
        "dynamo/conversion/_ConversionContext.py",
        "requires_output_allocator:",
        "output_allocator:",
        ("interpreter.ctx.requires_output_allocator", "has no"),
    ),
    "a module moves": (
        "dynamo/conversion/_ConverterRegistry.py",
        "DYNAMO_CONVERTERS",
        "CONVERTERS",
        ("import torch_tensorrt.dynamo.conversion._ConverterRegistry.DYNAMO_CONVERTERS", "has no"),
    ),
    "the engine's list is packed elsewhere": (
        "dynamo/runtime/_TorchTensorRTModule.py",
        "def _pack_engine_info(",
        "def pack(",
        ("module._pack_engine_info", "has no"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_upstream_is_named(change: str, rtx: Sources) -> None:
    file, old, new, expected = CHANGES[change]
    edited = rtx.edited(f"torch_tensorrt/{file}", old, new)
    found = "\n".join(problem for name in SHARED for problem in misfits(uses_in(ROOT / name, edited, name)))
    for text in expected:
        assert text in found


def test_every_gpu_of_ours_is_a_compute_capability_of_tensorrt_rtx(tensorrt: Any) -> None:
    for gpu in CAPABILITY_BITS.values():
        assert hasattr(tensorrt.ComputeCapability, f"SM{gpu.major}{gpu.minor}")


@pytest.mark.parametrize("name", ["num_compute_capabilities", "runtime_platform"])
def test_what_we_set_on_the_config_can_be_set(name: str, tensorrt: Any) -> None:
    assert getattr(tensorrt.IBuilderConfig, name).fset


def test_a_use_that_tensorrt_lacks_is_named(rtx: Sources, tmp_path: Path) -> None:
    file = tmp_path / "ours.py"
    file.write_text(
        "def build(interpreter, config):\n"
        "    import tensorrt\n"
        "    config.set_compute_capability(tensorrt.ComputeCapability.SM86)\n"
        "    config.target = tensorrt.RuntimePlatform.WINDOWS_ARM64\n"
        "    return interpreter.builder.build_serialized_network(network=1, settings=config)\n"
    )
    found = misfits(uses_in(file, rtx))
    assert len(found) == 4
    for problem, text in zip(found, ["index", "WINDOWS_ARM64", "'target'", "settings"], strict=True):
        assert text in problem


@pytest.fixture(scope="session")
def tensorrt_library(wheel_files: dict[Wheel, Path]) -> bytes:
    """TensorRT's own compiled bindings, which cannot be imported without TensorRT."""
    file = next(file for wheel, file in wheel_files.items() if wheel.name == "tensorrt-cu13-bindings")
    archive = zipfile.ZipFile(file)
    (library,) = (name for name in archive.namelist() if name.endswith(".so"))
    return archive.read(library)


def names_not_in(library: bytes, backend: str, sources: Sources) -> set[str]:
    """Returns the names of TensorRT that our code uses and that are not C strings of the library.

    pybind11 binds each name by such a string. A string may share the end of a longer one, so this finds only names that
    are missing, and does not prove that a name exists.
    """
    uses = [use for name in (*SHARED, BACKENDS[backend]) for use in uses_in(ROOT / name, sources, name)]
    used = {u.text.rpartition(".")[2] for u in uses if u.owner == "tensorrt" and re.search(r"\.\w+$", u.text)}
    assert {"build_serialized_network", "get_input", "add_identity"} <= used
    return {name for name in used if name.encode() + b"\0" not in library}


def test_tensorrts_own_bindings_have_the_names_that_we_use(rtx: Sources, tensorrt_library: bytes) -> None:
    assert names_not_in(tensorrt_library, "torch-tensorrt", rtx) == set()


def test_names_of_tensorrt_rtx_alone_are_not_in_tensorrts_bindings(rtx: Sources, tensorrt_library: bytes) -> None:
    missing = {"ComputeCapability", "num_compute_capabilities", "set_compute_capability"}
    assert names_not_in(tensorrt_library, "torch-tensorrt-rtx", rtx) == missing


STAND_INS = ("_utils.py", "_Device.py", "dynamo/_defaults.py", "dynamo/runtime/_serialized_engine_layout.py")


@claimed_releases
def test_upstream_still_asks_for_what_we_stand_in_for(wheel: Wheel, sources: dict[Wheel, Sources]) -> None:
    tree = ast.parse((ROOT / "upstream.py").read_text("utf-8"))
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "_stand_ins")
    table = next(n for n in ast.walk(function) if isinstance(n, ast.Dict))
    asked = "".join(sources[wheel].read(f"torch_tensorrt/{name}") or "" for name in STAND_INS)
    names = [ast.literal_eval(key) for key in table.keys if key]
    assert names
    assert [name for name in names if f"torch.cuda.{name}(" not in asked] == []
