"""``--many NAME=VALUE,...``: the options and the file name of each of several builds of one model."""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from linux_side.options import AXES, BuildOptions
from toolchain.errors import UsageError
from toolchain.options import flag_of

# The options that may vary: the axes of a matrix, and the dynamic sizes.
VARIED = (*AXES, "dynamic")
_WHERE = "--many"


def variants(texts: Sequence[str], options: Mapping[str, Any], out: str) -> dict[Path, BuildOptions]:
    """Returns the options of each combination of values, by the file to write.

    Args:
        texts: ``NAME=VALUE,VALUE``. A name may be repeated with more values. Several GPUs or sizes of one build are
            joined by ``+``. Commas in sizes separate profiles, so each text of ``dynamic`` is one value.
        options: the options that all builds share, by name.
        out: the files' name, with ``{NAME}`` in place of a value.

    Raises:
        UsageError: an option cannot vary, a value is wrong, or two builds would have the same name.
    """
    axes: dict[str, list[str]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not values:
            raise UsageError(
                f"{text!r} is not an option and its values", where=_WHERE, remedy="write precision=fp32,fp16"
            )
        known = _name(name.strip())
        parts = [values] if known == "dynamic" else values.split(",")
        axes.setdefault(known, []).extend(part.strip() for part in parts)
    found: dict[Path, BuildOptions] = {}
    for combination in itertools.product(*axes.values()):
        chosen = dict(zip(axes, combination, strict=True))
        path = Path(_filled(out, chosen))
        if path in found:
            left = [name for name, texts in axes.items() if len(texts) > 1 and name not in _places(out)]
            raise UsageError(
                f"two builds would be written to {path}",
                where=f"-o {out}",
                remedy=f"put {{{left[0]}}} into the name" if left else "give each value once",
            )
        found[path] = BuildOptions(**{**options, **{name: _value(name, text) for name, text in chosen.items()}})
    return found


def varied_names(texts: Sequence[str]) -> set[str]:
    """Returns the names of the fields that ``texts`` vary."""
    return {_name(text.partition("=")[0].strip()) for text in texts}


def _name(text: str) -> str:
    """Returns the field of an option, given the field's name or that of its flag."""
    names = {name: name for name in VARIED}
    names |= {flag_of(BuildOptions, name).removeprefix("--"): name for name in VARIED}
    if text not in names:
        raise UsageError(f"{text!r} cannot vary", where=_WHERE, remedy="name one of: " + ", ".join(VARIED))
    return names[text]


def _value(name: str, text: str) -> Any:
    return text.split("+") if name in ("gpus", "dynamic") else text


def _places(out: str) -> list[str]:
    """Returns the fields whose values are in a file's name."""
    try:
        return [_name(name) for _, name, _, _ in string.Formatter().parse(out) if name is not None]
    except ValueError as error:
        raise UsageError(f"the name {out!r} cannot be filled in: {error}", where="-o") from error


def _filled(out: str, chosen: Mapping[str, str]) -> str:
    if unknown := [name for name in _places(out) if name not in chosen]:
        raise UsageError(
            f"{{{unknown[0]}}} is in the name, and {unknown[0]} does not vary",
            where=f"-o {out}",
            remedy="use what --many names: " + ", ".join(f"{{{name}}}" for name in chosen),
        )
    # Other characters may not be allowed in a file name on Windows.
    texts = {name: re.sub(r"[^\w.+=-]", "_", text) for name, text in chosen.items()}
    return "".join(
        literal + (texts[_name(name)] if name is not None else "")
        for literal, name, _, _ in string.Formatter().parse(out)
    )
