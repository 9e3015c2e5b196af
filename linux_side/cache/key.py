"""Cache keys: a digest of everything that a build depends on.

Builds with the same key give the same artifact, except for the manifest's ``created`` and ``build``.
"""

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
# Folders of these packages that cannot change an artifact.
_IGNORED = {"__pycache__", "commands", "matrix"}


def file_key(path: Path, name: str | None, options: BuildOptions) -> str | None:
    """Returns the key of a build from the file of an exported program, in whatever folder it is.

    Args:
        path: the file.
        name: the model's name; None for the file's own.
        options: the build's options.

    Returns:
        The key, or None for the backend ``tensorrt``: its engines also depend on the GPU on which they are built.
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
    """Returns the key of a build from an exported program in memory.

    Args:
        digest: the digest of the graph and the weights.
        golden: the golden entry and its warnings. The graph does not determine them: the model may have been cast, or
            may compute something else outside of ``torch.export``.
        name: the model's name.
        gpu: the name of the GPU at hand, if the backend builds for that GPU; otherwise None.
        options: the build's options.
        classes: the manifest's entries for the classes of the call, which the graph does not determine.
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
    """Returns the digest of our own code, which during development changes more often than its version."""
    folders = [
        Path(folder)
        for package in _PACKAGES
        if (spec := util.find_spec(package))
        for folder in spec.submodule_search_locations or ()
    ]
    return sources_digest(folders)


def sources_digest(folders: Iterable[Path]) -> str:
    """Returns the digest of every file (data files too) of these packages that can change an artifact.

    Args:
        folders: the packages' folders. A file counts under its path relative to its package.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and _IGNORED.isdisjoint(inside.parts):
                digest.update(f"{folder.name}/{inside.as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()
