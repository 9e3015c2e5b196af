"""Finds what a metadata pickle would make a stock reader import, from its opcodes. Nothing is unpickled."""

from __future__ import annotations

import binascii
import pickletools
import re

import pybase64

from toolchain.limits import METADATA

_DATA = {
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
    "BINFLOAT", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS",
    "SETITEM", "SETITEMS", "NEWOBJ", "NEWOBJ_EX",
}  # fmt: skip
_TEXT = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_RECALL = {"BINGET", "LONG_BINGET"}

_SYMPY = {
    "sympy.core.add": {"Add"},
    "sympy.core.mod": {"Mod"},
    "sympy.core.mul": {"Mul"},
    "sympy.core.numbers": {"Float", "Half", "Integer", "NegativeOne", "One", "Rational", "Zero"},
    "sympy.core.power": {"Pow"},
    "sympy.core.symbol": {"Symbol"},
    "sympy.functions.elementary.integers": {"ceiling", "floor"},
    "sympy.functions.elementary.miscellaneous": {"Max", "Min"},
}
_TORCH_FUNCTIONS = re.compile(r"[A-Z][A-Za-z]+")
_DTYPE = re.compile(r"bool|(u?int|float|bfloat|complex)[0-9]{1,3}(_[a-z0-9]+)?")
# sympy evaluates the text that it is given; a mere name does nothing.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def unknown_in_pickle(text: str) -> str | None:
    """Describes what a base64 pickle holds beyond shapes (sizes, dtypes, names of sympy's own classes), or None."""
    if METADATA.excess(len(text)):
        return f"{len(text)} characters of it"
    try:
        data = pybase64.b64decode(text.encode("ascii"), validate=True)
        return _first_unknown(data) if data else None
    except (binascii.Error, UnicodeError, ValueError, IndexError) as error:
        return f"bytes that are no pickle ({error})"


def _first_unknown(data: bytes) -> str | None:
    memo: list[str | None] = []
    recent: list[str | None] = []  # the texts that were pushed last: STACK_GLOBAL takes two
    last: str | None = None
    position = -1
    for opcode, argument, at in pickletools.genops(data):
        position = at or 0
        if opcode.name == "MEMOIZE":
            memo.append(last)
            continue
        if opcode.name in _TEXT:
            last = str(argument)
            if not is_simple_text(last):
                return f"the text {last[:80]!r}"
            recent.append(last)
        elif opcode.name in _RECALL:
            last = memo[int(argument or 0)]
            recent.append(last)
        elif opcode.name == "STACK_GLOBAL":
            module, name = ([None, None, *recent])[-2:]
            if not is_shape_name(module, name):
                return f"the name {module}.{name}"
            last, recent = None, [None]
        elif opcode.name in _DATA:
            last, recent = None, []
        else:
            return f"the opcode {opcode.name}"
    return None if position == len(data) - 1 else "bytes behind its end"


def is_simple_text(text: str) -> bool:
    """Whether a text is a mere name, which sympy may evaluate, or a module on the list."""
    return bool(_NAME.fullmatch(text)) or text in _SYMPY or text == "torch.utils._sympy.functions"


def is_shape_name(module: str | None, name: str | None) -> bool:
    """Whether a global is a dtype of torch, or a class on the list of sympy's and torch's symbolic functions."""
    if module is None or name is None:
        return False
    if module == "torch":
        return bool(_DTYPE.fullmatch(name))
    if module == "torch.utils._sympy.functions":
        return bool(_TORCH_FUNCTIONS.fullmatch(name))
    return name in _SYMPY.get(module, ())
