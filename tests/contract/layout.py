"""Reads the layout of engine info in a release of Torch-TensorRT from the sources in its wheel."""

from __future__ import annotations

import ast
import contextlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .sources import Function, MissingNameError, Sources, statements

HEADER = "torch_tensorrt/include/torch_tensorrt/core/runtime/runtime.h"
PYTHON_LAYOUT = "torch_tensorrt/dynamo/runtime/_serialized_engine_layout.py"
OLD_PYTHON_LAYOUT = "torch_tensorrt/dynamo/runtime/_TorchTensorRTModule.py"
OPERATOR = "no_op_placeholder_for_execute_engine"
OPERATOR_MODULE = "torch_tensorrt.dynamo.runtime.meta_ops.register_meta_ops"
OPERATOR_MODULE_2_6 = "torch_tensorrt.runtime._utils"

# By our name of a field: upstream's names of its index and of the placeholder operator's parameter.
UPSTREAM_NAMES = {
    "abi_version": ("ABI_TARGET_IDX", "abi_version"),
    "name": ("NAME_IDX", "name"),
    "device": ("DEVICE_IDX", "serialized_device_info"),
    "engine": ("ENGINE_IDX", "serialized_engine"),
    "input_binding_names": ("INPUT_BINDING_NAMES_IDX", "serialized_in_binding_names"),
    "output_binding_names": ("OUTPUT_BINDING_NAMES_IDX", "serialized_out_binding_names"),
    "hardware_compatible": ("HW_COMPATIBLE_IDX", "serialized_hardware_compatible"),
    "metadata": ("SERIALIZED_METADATA_IDX", "serialized_metadata"),
    "target_platform": ("TARGET_PLATFORM_IDX", "serialized_target_platform"),
    "requires_output_allocator": ("REQUIRES_OUTPUT_ALLOCATOR_IDX", "serialized_require_output_allocator"),
    "resource_allocation_strategy": ("RESOURCE_ALLOCATION_STRATEGY_IDX", "serialized_resource_allocation_strategy"),
    "requires_native_multidevice": ("REQUIRES_NATIVE_MULTIDEVICE_IDX", "serialized_requires_native_multidevice"),
    "aliased_io": ("ALIASED_IO_IDX", "serialized_aliased_io"),
}


@dataclass(frozen=True)
class Layout:
    """The layout of engine info: the ABI version (None where the source does not name it) and the ordered fields."""

    abi_version: int | None
    indices: tuple[str, ...]


def cpp_layout(sources: Sources) -> Layout:
    """Returns the layout in the headers from which the C++ runtime was compiled."""
    text = sources.read(HEADER) or ""
    version = re.search(r'ABI_VERSION = "(\d+)"', text)
    body = re.search(r"enum\s*\{([^{}]*)\}\s*SerializedInfoIndex", text)
    assert version and body, f"{HEADER} of {sources.label} names no ABI version or no SerializedInfoIndex"
    *names, length = re.findall(r"^\s*(\w+)(?: = 0)?,", body[1], re.MULTILINE)
    assert length == "SERIALIZATION_LEN"
    return Layout(int(version[1]), tuple(names))


def python_layout(sources: Sources) -> Layout:
    """Returns the layout in the Python sources: an enumeration since 2.13, only names before."""
    text = sources.read(PYTHON_LAYOUT)
    if text is None:
        return Layout(None, _constants(sources.read(OLD_PYTHON_LAYOUT) or ""))
    body = list(statements(ast.parse(text).body))
    enumeration = next(s for s in body if isinstance(s, ast.ClassDef) and s.name == "SerializedInfoIndex")
    members = {ast.unparse(s.targets[0]): s.value for s in enumeration.body if isinstance(s, ast.Assign)}
    assert [ast.literal_eval(value) for value in members.values()] == list(range(len(members)))
    return Layout(int(text_constants(sources, "_serialized_engine_layout")["ABI_VERSION"]), tuple(members))


def _constants(text: str) -> tuple[str, ...]:
    """Returns the names that the Python sources request of the C++ runtime, in their order."""
    *names, length = re.findall(r"= \(?\s*torch\.ops\.tensorrt\.(\w+_IDX|SERIALIZATION_LEN)\(\)", text)
    assert length == "SERIALIZATION_LEN"
    return tuple(names)


def operator_parameters(sources: Sources) -> dict[str, str]:
    """Returns the placeholder operator's parameters and their types, without the inputs."""
    operator = None
    for module in (OPERATOR_MODULE, OPERATOR_MODULE_2_6):
        with contextlib.suppress(MissingNameError):
            operator = operator or sources.attribute(sources.import_module(module), OPERATOR)
    assert isinstance(operator, Function), f"{sources.label} has no placeholder operator"
    first, *rest = operator.node.args.args
    assert first.arg == "inputs"
    return {a.arg: ast.unparse(a.annotation).removeprefix("torch.") if a.annotation else "" for a in rest}


def text_constants(sources: Sources, module: str) -> dict[str, str]:
    """Returns the string constants at the top level of a module of ``dynamo.runtime``."""
    body = statements(sources.module(f"torch_tensorrt.dynamo.runtime.{module}").body)
    return {
        ast.unparse(s.targets[0]): s.value.value
        for s in body
        if isinstance(s, ast.Assign) and isinstance(s.value, ast.Constant) and isinstance(s.value.value, str)
    }


def upstream_function(sources: Sources, module: str, name: str, **names: Any) -> Callable[..., Any]:
    """Returns one of upstream's pure functions without importing the rest of its module.

    Args:
        module: the module below ``torch_tensorrt.dynamo.runtime``.
        name: the function's name.
        names: what the function's code needs besides the constants of the engine's layout.
    """
    function = sources.attribute(sources.import_module(f"torch_tensorrt.dynamo.runtime.{module}"), name)
    assert isinstance(function, Function), f"{sources.label} has no function {module}.{name}"
    namespace = {"logger": logging.getLogger(name), **text_constants(sources, "_serialized_engine_layout"), **names}
    future = ast.parse("from __future__ import annotations").body  # the names in annotations are not defined here
    code = compile(ast.Module([*future, function.node], type_ignores=[]), f"{sources.label}:{name}", "exec")
    exec(code, namespace)
    return namespace[name]
