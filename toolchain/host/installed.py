"""What is installed here, found without importing it.

``importlib.metadata`` and urllib are imported where they are needed: they take longer than a manifest to read.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def own_version() -> str:
    """The version of trtcross."""
    return version_of("trtcross") or "0+uninstalled"


def install_line(extra: str) -> str:
    """The command that installs trtcross with an extra.

    It is on no index, where its name could be anybody's: it is installed from where this one came from, or from its
    wheel.
    """
    return f'python -m pip install "{_origin() or _wheel()}[{extra}]"'


def _origin() -> str | None:
    """The checkout or the wheel that pip installed this trtcross from, where it is still there."""
    from importlib import metadata
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        text = metadata.distribution("trtcross").read_text("direct_url.json") or "{}"
    except metadata.PackageNotFoundError:
        return None
    url = urlsplit(json.loads(text).get("url", ""))
    path = url2pathname(url.path) if url.scheme == "file" else ""
    return path if path and Path(path).exists() else None


def _wheel() -> str:
    return f"trtcross-{own_version()}-py3-none-any.whl"


def torch_version() -> str | None:
    """torch's full version with its build tag (``2.14.1+cu130``), read from its source."""
    return _torch_constant("__version__") or version_of("torch")


def torch_cuda() -> str | None:
    """The CUDA release that torch was built with, or None for a CPU build."""
    return _torch_constant("cuda")


def package_folder(name: str) -> Path | None:
    """The folder of an importable package, without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _torch_constant(name: str) -> str | None:
    folder = package_folder("torch")
    path = folder / "version.py" if folder else None
    if path is None or not path.is_file():
        return None
    import ast

    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        for target in targets:
            value = getattr(statement, "value", None)
            if isinstance(target, ast.Name) and target.id == name and isinstance(value, ast.Constant):
                return None if value.value is None else str(value.value)
    return None
