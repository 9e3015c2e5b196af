"""Parses TOML, with Python's own parser or, on Python 3.10, with tomli."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from toolchain.errors import MissingComponentError


def parse_toml(text: str) -> dict[str, Any]:
    """Parses TOML with the parser that this Python has.

    Raises:
        ValueError: the text is not TOML.
        MissingComponentError: on Python 3.10, tomli is missing; installing trtcross installs it.
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
