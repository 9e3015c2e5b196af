"""Registers NVIDIA's plugin of onnxruntime in this process, and finds the GPUs that it supports."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any

from toolchain.errors import IncompatibleError, MissingComponentError, UsageError
from toolchain.formats.plugins import plugins
from toolchain.host.installed import version_of


@dataclass(frozen=True)
class Plugin:
    """onnxruntime with the plugin registered.

    Attributes:
        onnxruntime: the module.
        name: the name under which the plugin is registered.
    """

    onnxruntime: Any
    name: str

    def device(self, index: int) -> Any:
        """Returns one of the GPUs that the plugin supports, by its index among them.

        Raises:
            IncompatibleError: the plugin supports no GPU of this machine.
            UsageError: the plugin has no GPU of this index.
        """
        found = [device for device in self.onnxruntime.get_ep_devices() if device.ep_name == self.name]
        if not found:
            raise IncompatibleError(
                "onnxruntime's plugin of NVIDIA finds no GPU that it takes",
                where="onnxruntime",
                remedy="it takes GPUs from compute capability 8.0 on; `trtcross check` lists this machine's",
            )
        if index >= len(found):
            raise UsageError(
                f"there is no GPU {index}: the plugin takes {len(found)}",
                where=f"--device cuda:{index}",
                remedy="name another one",
            )
        return found[index]


@cache
def load_plugin() -> Plugin:
    """Imports onnxruntime and registers the plugin.

    Raises:
        IncompatibleError: the plugin cannot be loaded, as on a machine without NVIDIA's driver.
        MissingComponentError: onnxruntime or the plugin is not installed.
    """
    table = plugins()
    try:
        onnxruntime = importlib.import_module("onnxruntime")
        package = importlib.import_module(table.module)
    except ImportError as error:
        raise MissingComponentError(
            f"the module {error.name} is not installed here, or cannot be imported: {error}",
            where="onnxruntime",
            remedy=f'python -m pip install "onnxruntime>={table.onnxruntime}" {table.package}',
        ) from error
    name = str(package.get_ep_name())
    try:
        onnxruntime.register_execution_provider_library(name, package.get_library_path())
    except Exception as error:  # onnxruntime's own classes have no common one
        raise IncompatibleError(
            f"onnxruntime cannot load NVIDIA's plugin: {_last(error)}",
            where=f"{table.package} {version_of(table.package)}",
            remedy="it needs NVIDIA's driver, with libcuda.so.1 or nvcuda.dll; `trtcross check` lists what is missing",
        ) from error
    return Plugin(onnxruntime, name)


def _last(error: Exception) -> str:
    """Returns onnxruntime's message without the codes before it."""
    return str(error).rpartition(" : ")[2].strip() or type(error).__name__
