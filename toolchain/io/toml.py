"""TOML, read by what Python brings, or by tomli on Python 3.10."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from toolchain.errors import MissingComponentError


def parse_toml(text: str) -> dict[str, Any]:
    """The document.

    Raises:
        ValueError: it is not TOML.
        MissingComponentError: Python 3.10 without tomli, which an installed trtcross brings.
    """
    name = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    try:
        module: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingComponentError(
            f"reading TOML needs the module {name}, which is not installed here",
            where="this Python environment",
            remedy="python -m pip install tomli",
        ) from error
    document: dict[str, Any] = module.loads(text)
    return document
