"""Finds what is installed here, without importing it.

``importlib.metadata`` and urllib are imported in functions: importing them takes longer than reading a manifest.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path


def version_of(distribution: str) -> str | None:
    """Returns the installed version of a distribution, or None."""
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def own_version() -> str:
    """Returns the version of trtcross."""
    return version_of("trtcross") or "0+uninstalled"


def install_line(extra: str) -> str:
    """Returns the command that installs trtcross with an extra.

    trtcross is on no index, where anybody could take its name. So the command names the place that this installation
    came from, or else the wheel.
    """
    return f'python -m pip install "{_origin() or _wheel()}[{extra}]"'


def _origin() -> str | None:
    """Returns the checkout or wheel from which pip installed this trtcross, if it still exists."""
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
    """Returns torch's full version with its build tag (``2.14.1+cu130``), read from its source; None without torch."""
    return _torch_constant("__version__") or version_of("torch")


def torch_cuda() -> str | None:
    """Returns the CUDA release that torch was built with; None for a CPU build, or without torch."""
    return _torch_constant("cuda")


def package_folder(name: str) -> Path | None:
    """Returns the folder of a package without importing it; None if there is no such package."""
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
