"""Reads the metadata pickle of Torch-TensorRT's own files as plain values; nothing in it is imported or called.

A global becomes a :class:`Name`, and a constructor call a :class:`Made`; only names on the list are accepted. The part
that stock readers need is written again, without the rest.
"""

from __future__ import annotations

import base64
import binascii
import math
import pickletools
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pybase64

from toolchain.engine.metadata_allowlist import is_shape_name, is_simple_text
from toolchain.limits import METADATA

_VALUE_LIMIT = 50_000
_DEPTH_LIMIT = 60

_NAMES = {
    "torch_tensorrt.dynamo._settings": {"CompilationSettings"},
    "torch_tensorrt._Device": {"Device"},
    "torch_tensorrt._enums": {"DeviceType", "EngineCapability", "Platform", "dtype", "memory_format"},
    "torch": {"Size", "device"},
    "builtins": {"frozenset", "set"},
    "collections": {"OrderedDict"},
}
_SHAPE_KEYS = ("inout_symexprs", "output_tensors_are_unowned")
# Settings that hold paths of the machine that built the engine.
_PATH_SETTINGS = {"timing_cache_path", "engine_cache_dir"}
_SYMPY = re.compile(r"sympy\.|torch\.utils\._sympy\.")


class PickleError(ValueError):
    """The pickle is damaged, or holds more than values and known names; the message names the offending part."""


@dataclass(frozen=True)
class Name:
    """A global of the pickle, as a name that is not imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass
class Made:
    """A constructor call that is not made: the class, its arguments, and the state that would be set afterwards."""

    of: Name
    args: Any
    keywords: Any = None
    state: dict[Any, Any] = field(default_factory=dict)


@dataclass
class Members:
    """The members of a set, which need not be hashable here."""

    values: list[Any] = field(default_factory=list)


def read_metadata(text: str) -> dict[Any, Any]:
    """Reads the metadata field of engine info as plain values.

    Raises:
        PickleError: the text is no such pickle, or names something that is not on the list.
    """
    if METADATA.excess(len(text)):
        raise PickleError(f"{len(text)} characters of it")
    try:
        data = pybase64.b64decode(text.encode("ascii"), validate=True)
        value = _Machine().run(data) if data else {}
        _check_size(value)
    except PickleError:
        raise
    except (binascii.Error, UnicodeError, ValueError, IndexError, TypeError, KeyError, AttributeError) as error:
        raise PickleError(f"bytes that are no pickle ({error})") from error
    if not isinstance(value, dict):
        raise PickleError("no dictionary")
    return value


def settings_of(metadata: dict[Any, Any]) -> dict[str, Any] | None:
    """Returns the compilation settings as plain JSON; None if the metadata has none."""
    settings = metadata.get("settings")
    if not isinstance(settings, Made):
        return None
    return {str(key): _plain(value) for key, value in settings.state.items() if key not in _PATH_SETTINGS}


def shapes_alone(metadata: dict[Any, Any]) -> str:
    """Writes a pickle, in base64, with only what Torch-TensorRT's fake kernel reads.

    Raises:
        PickleError: a shape cannot be written with the names that every reader accepts.
    """
    kept = {key: metadata.get(key) for key in _SHAPE_KEYS}
    return base64.b64encode(b"\x80\x04" + b"".join(_written(kept)) + b".").decode("ascii")


class _Machine:
    """A pickle machine that handles data and names; calls are recorded and never made."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: list[Any] = []

    def run(self, data: bytes) -> Any:
        position = 0
        for opcode, argument, at in pickletools.genops(data):
            position = at or 0
            if opcode.name in _CONSTANTS:
                self._stack.append(_CONSTANTS[opcode.name]())
            elif opcode.name in _LITERALS:
                self._stack.append(argument)
            elif step := _STEPS.get(opcode.name):
                step(self, argument)
            elif opcode.name not in ("PROTO", "FRAME", "STOP"):
                raise PickleError(f"the opcode {opcode.name}")
        if position != len(data) - 1 or len(self._stack) != 1:
            raise PickleError("bytes behind its end")
        return self._stack[0]

    def _popped(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def mark(self, _: object) -> None:
        self._marks.append(len(self._stack))

    def memoize(self, _: object) -> None:
        self._memo.append(self._stack[-1])

    def recall(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def tuple_of(self, count: int | None) -> None:
        values = self._popped() if count is None else self._stack[len(self._stack) - count :]
        if count is not None:
            del self._stack[len(self._stack) - count :]
        self._stack.append(tuple(values))

    def append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise PickleError("an append to what is not a list")
        target.extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Made) and target.of == Name("collections", "OrderedDict"):
            target = target.state
        if not isinstance(target, dict):
            raise PickleError("an item for what is not a dictionary")
        target.update(zip(values[::2], values[1::2], strict=True))

    def add_items(self) -> None:
        values = self._popped()
        if not isinstance(self._stack[-1], Members):
            raise PickleError("a member for what is not a set")
        self._stack[-1].values.extend(values)

    def name(self, _: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not (isinstance(module, str) and isinstance(name, str) and _is_known(module, name)):
            raise PickleError(f"the name {module}.{name}"[:200])
        self._stack.append(Name(module, name))

    def make(self, with_keywords: bool) -> None:
        keywords = self._stack.pop() if with_keywords else None
        args, of = self._stack.pop(), self._stack.pop()
        if not isinstance(of, Name) or not isinstance(args, tuple) or not isinstance(keywords, (dict, type(None))):
            raise PickleError("a call without a name or arguments")
        self._stack.append(Made(of, args, keywords))

    def build(self, _: object) -> None:
        state, made = self._stack.pop(), self._stack[-1]
        if not (isinstance(made, Made) and isinstance(state, dict)):
            raise PickleError("a state of what is not an object")
        made.state.update(state)


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": Members,
}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "TUPLE": lambda machine, _: machine.tuple_of(None),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": lambda machine, _: machine.append([machine._stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine._popped()),
    "SETITEM": lambda machine, _: machine.set_items([machine._stack.pop(-2), machine._stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine._popped()),
    "ADDITEMS": lambda machine, _: machine.add_items(),
    "STACK_GLOBAL": _Machine.name,
    "NEWOBJ": lambda machine, _: machine.make(False),
    "NEWOBJ_EX": lambda machine, _: machine.make(True),
    "REDUCE": lambda machine, _: machine.make(False),
    "BUILD": _Machine.build,
}


def _is_known(module: str, name: str) -> bool:
    return name in _NAMES.get(module, ()) or is_shape_name(module, name)


def _check_size(value: Any) -> None:
    """Refuses a value that a few bytes make huge, by nested references to the same list or a list that holds itself."""
    level, count = [value], 0
    for _ in range(_DEPTH_LIMIT):
        level = [part for whole in level for part in _parts(whole)]
        count += len(level)
        if not level:
            return
        if count > _VALUE_LIMIT:
            break
    raise PickleError("more values than shapes and settings have")


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, Members):
        return value.values
    return [value.args, value.keywords, value.state] if isinstance(value, Made) else []


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(member) for member in value]
    if isinstance(value, Members):
        return sorted((_plain(member) for member in value.values), key=str)
    if isinstance(value, Name):
        return value.name if value.module == "torch" else str(value)
    if isinstance(value, (int, float)) and not (math.isfinite(value) and abs(value) < 2**63):
        return str(value)[:80]
    if not isinstance(value, Made):
        return value
    if value.state:
        return _plain(value.state)
    arguments = _plain(value.args)
    if _SYMPY.match(value.of.module) and value.of.name == "Symbol" and arguments:
        return arguments[0]
    return f"{value.of.name}({', '.join(map(str, arguments))})"


def _written(value: Any) -> Iterator[bytes]:
    """Yields opcodes of a pickle, of the few kinds that :mod:`toolchain.engine.metadata_allowlist` accepts."""
    if value is None or isinstance(value, bool):
        yield {None: b"N", True: b"\x88", False: b"\x89"}[value]
    elif isinstance(value, int):
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        if len(raw) > 8:
            raise PickleError(f"the number {str(value)[:20]}...")
        yield b"\x8a" + bytes([len(raw)]) + raw
    elif isinstance(value, float):
        yield b"G" + struct.pack(">d", value)
    elif isinstance(value, str):
        if not is_simple_text(value):
            raise PickleError(f"the text {value[:80]!r}")
        yield b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    elif isinstance(value, dict):
        yield b"}("
        for pair in value.items():
            for part in pair:
                yield from _written(part)
        yield b"u"
    elif isinstance(value, (list, tuple)):
        yield b"](" if isinstance(value, list) else b"("
        for part in value:
            yield from _written(part)
        yield b"e" if isinstance(value, list) else b"t"
    elif isinstance(value, Name) and is_shape_name(value.module, value.name):
        yield from (*_written(value.module), *_written(value.name), b"\x93")
    elif isinstance(value, Made) and not value.state:
        yield from (*_written(value.of), *_written(value.args))
        if value.keywords is None:
            yield b"\x81"
        else:
            yield from (*_written(value.keywords), b"\x92")
    else:
        raise PickleError(f"the name {value.of if isinstance(value, Made) else value}")
