"""NVIDIA's plugin for onnxruntime: which TensorRT-RTX each of its releases contains, as listed in ``plugins.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from toolchain.manifest.models import Manifest
from toolchain.targets import Backend, Platform


@dataclass(frozen=True)
class Plugins:
    """The table of the plugin's releases.

    Attributes:
        package: the name of its distribution.
        module: the name of its Python module.
        onnxruntime: the earliest release of onnxruntime that it accepts.
        releases: for each release of the plugin, the exact release of TensorRT-RTX in it.
    """

    package: str
    module: str
    onnxruntime: str
    releases: dict[str, str]

    def release_for(self, runtime: str) -> str | None:
        """Returns the plugin's release that runs engines of this exact release of TensorRT-RTX, or None."""
        return next((release for release, held in self.releases.items() if held == runtime), None)


@cache
def plugins() -> Plugins:
    """Reads the table, once."""
    return Plugins(**json.loads(Path(__file__).with_name("plugins.json").read_text("utf-8")))


def plugin_line(manifest: Manifest) -> str | None:
    """Returns the command that installs onnxruntime and the plugin for an artifact's engines; None if none fits."""
    if manifest.target.backend is not Backend.TENSORRT_RTX:
        return None
    table = plugins()
    release = table.release_for(manifest.target.runtime)
    if release is None:
        return None
    return f'python -m pip install "onnxruntime>={table.onnxruntime}" {table.package}=={release}'


def set_up_lines(manifest: Manifest) -> list[str]:
    """Returns the lines that set up a machine to run the artifact's ONNX file from Python."""
    line = plugin_line(manifest)
    if line is None:
        return [f"no known release of {plugins().package} contains TensorRT-RTX {manifest.target.runtime}"]
    windows = manifest.target.platform is Platform.WINDOWS_X86_64
    python = r".venv\Scripts\python" if windows else ".venv/bin/python"
    minor = ".".join(manifest.producer.python.split(".")[:2])
    create = f"py -{minor} -m venv .venv" if windows else f"python{minor} -m venv .venv"
    return [create, line.replace("python", python, 1)]
