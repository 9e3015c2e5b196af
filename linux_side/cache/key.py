"""What a build depends on, as one digest: the same key, the same artifact but for ``created`` and ``build``."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Sequence
from importlib import util
from pathlib import Path
from typing import Any

from linux_side.options import BuildOptions
from toolchain.host.installed import own_version, version_of
from toolchain.io.hashing import file_digest
from toolchain.targets import Backend

_PACKAGES = ("linux_side", "toolchain")
# Folders of them that change no artifact.
_APART = {"__pycache__", "commands", "matrix"}


def file_key(path: Path, name: str | None, options: BuildOptions) -> str | None:
    """The key of a build from an exported program's file, whatever its folder.

    Args:
        name: the model's; None for the file's own.

    Returns:
        None where the file does not tell all: an engine of TensorRT belongs to the GPU on which it was built.
    """
    if options.backend == Backend.TENSORRT.value:
        return None
    return _key({"file": file_digest(path), "name": name or path.stem}, options)


def program_key(
    digest: str,
    golden: bytes,
    name: str,
    gpu: str | None,
    options: BuildOptions,
    classes: Sequence[dict[str, Any]] = (),
) -> str:
    """The key of a build from an exported program.

    Args:
        digest: of the graph and the weights.
        golden: the golden entry and what is said of it, which the graph alone does not tell: of a model that was cast,
            or that computes something else outside of torch.export.
        gpu: the GPU at hand, where the backend builds for it.
        classes: what the manifest says of the call's classes, which the graph does not tell.
    """
    source: dict[str, Any] = {
        "program": digest,
        "golden": hashlib.sha256(golden).hexdigest(),
        "name": name,
        "gpu": gpu,
        "classes": list(classes),
    }
    return _key(source, options)


def _key(source: dict[str, Any], options: BuildOptions) -> str:
    document = {
        "source": source,
        "settings": options.model_dump(mode="json"),
        "versions": _versions(options.backend),
        "host": [platform.system(), platform.machine()],
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _versions(backend: str) -> dict[str, str]:
    distributions = (Backend.TENSORRT_RTX if backend == "auto" else Backend(backend)).distributions
    return {
        "python": platform.python_version(),
        "trtcross": f"{own_version()} {_own_sources()}",
        **{name: version_of(name) or "not installed" for name in ("torch", *distributions)},
    }


def _own_sources() -> str:
    """The digest of the code that builds, which changes more often than its version while it is worked on."""
    folders = [
        Path(folder)
        for package in _PACKAGES
        if (spec := util.find_spec(package))
        for folder in spec.submodule_search_locations or ()
    ]
    return sources_digest(folders)


def sources_digest(folders: Iterable[Path]) -> str:
    """The digest of every file in these packages that can change an artifact, data files too, by its relative path."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and _APART.isdisjoint(inside.parts):
                digest.update(f"{folder.name}/{inside.as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()
