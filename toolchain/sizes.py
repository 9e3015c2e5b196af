"""Sizes in bytes, as people write them."""

from __future__ import annotations

import re

from pydantic import ByteSize, TypeAdapter, ValidationError

from toolchain.errors import UsageError

SIZE_REMEDY = "write 16GiB, 512MiB, 500MB or a number of bytes"

_BYTES = TypeAdapter(ByteSize)
# pydantic would read only the beginning of a text ("1,5GB" as one byte), accept bits, and read G as GB.
_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGTPE])(i?B)?|B)?", re.IGNORECASE | re.ASCII)
_LIMIT = 2**63


def parse_size(text: str, *, where: str, minimum: int = 0) -> int:
    """Reads a size in bytes: ``16GiB`` or ``16G`` (binary), ``16GB`` (decimal) or ``1000``; units go from K to E.

    Raises:
        UsageError: the text is no size, or one that is less than ``minimum``.
    """
    match = _FORM.fullmatch(text.strip())
    size = -1
    if match:
        binary = match[2] and not match[3]
        try:
            size = int(_BYTES.validate_python(f"{match[1]}{match[2]}iB" if binary else match[0]))
        except ValidationError:  # more digits than a number may have
            size = -1
    if not 0 <= size < _LIMIT:
        raise UsageError(f"{text[:80]!r} is not a size", where=where, remedy=SIZE_REMEDY)
    if size < minimum:
        raise UsageError(f"{text[:80]!r} is less than {minimum} byte(s)", where=where, remedy=SIZE_REMEDY)
    return size
