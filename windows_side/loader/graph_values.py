"""Reads values in a graph's JSON. Each is an object with one member, whose name is the value's kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from toolchain.graph.values import SCALAR_TYPES
from windows_side.loader.graph_operators import UnknownFormError

_LAYOUTS = {7: torch.strided}
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_FLOATS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


def the_only(member: Any) -> tuple[str, Any]:
    """Returns the kind and the content of a value.

    Raises:
        ValueError: the value is not an object with one member.
    """
    if not isinstance(member, dict) or len(member) != 1:
        raise ValueError("a value is not an object with one member")
    [(kind, content)] = member.items()
    return kind, content


def dtype_of(number: Any) -> torch.dtype:
    """Returns the torch dtype of a number in the graph's JSON.

    Raises:
        ValueError: the number stands for no dtype.
    """
    if type(number) is not int or number not in SCALAR_TYPES:
        raise ValueError(f"{number!r} is no dtype")
    found: torch.dtype = getattr(torch, SCALAR_TYPES[number])
    return found


def integer(content: Any) -> int:
    """Returns a whole number of the graph's JSON.

    Raises:
        ValueError: the content is anything else, such as ``true``.
    """
    if type(content) is not int:
        raise ValueError(f"{str(content)[:40]!r} is no whole number")
    return content


def _boolean(content: Any) -> bool:
    if type(content) is not bool:
        raise ValueError(f"{str(content)[:40]!r} is neither true nor false")
    return content


def _number(content: Any) -> float:
    if isinstance(content, str) and content in _FLOATS:
        return _FLOATS[content]
    if type(content) not in (int, float):
        raise ValueError(f"{str(content)[:40]!r} is no number")
    return float(content)


def _text(content: Any) -> str:
    if not isinstance(content, str):
        raise ValueError(f"{str(content)[:40]!r} is no text")
    return content


def _one_of(choices: Mapping[int, Any]) -> Callable[[Any], Any]:
    def read(content: Any) -> Any:
        if type(content) is not int:
            raise ValueError(f"{str(content)[:40]!r} is no number of a layout")
        if content not in choices:
            raise UnknownFormError(f"a layout or memory format of number {content}")
        return choices[content]

    return read


def _complex(content: Any) -> complex:
    if not isinstance(content, dict) or content.keys() != {"real", "imag"}:
        raise ValueError("a complex number has no real and imaginary part")
    return complex(_number(content["real"]), _number(content["imag"]))


def _list_of(read: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def read_list(content: Any) -> list[Any]:
        if not isinstance(content, list):
            raise ValueError("a value of several is no array")
        return [read(item) for item in content]

    return read_list


_CONSTANTS: dict[str, Callable[[Any], Any]] = {
    "as_none": lambda _: None,
    "as_int": integer,
    "as_ints": _list_of(integer),
    "as_float": _number,
    "as_floats": _list_of(_number),
    "as_bool": _boolean,
    "as_bools": _list_of(_boolean),
    "as_string": _text,
    "as_strings": _list_of(_text),
    "as_complex": _complex,
    "as_scalar_type": dtype_of,
    "as_memory_format": _one_of(_MEMORY_FORMATS),
    "as_layout": _one_of(_LAYOUTS),
    "as_float_lists": _list_of(_list_of(_number)),
    "as_int_lists": _list_of(lambda content: tuple(_list_of(integer)(content))),
}
_SIZES = {"as_sym_int": "as_int", "as_sym_float": "as_float", "as_sym_bool": "as_bool"}


class Values:
    """Reads values of a graph, in which a name refers to a node that was read before."""

    def __init__(self, device: torch.device) -> None:
        """Starts without nodes.

        Args:
            device: where everything is, whatever the graph states.
        """
        self._device = device
        self._nodes: dict[str, torch.fx.Node] = {}

    def name(self, name: Any, node: torch.fx.Node) -> None:
        """Gives a node its name.

        Raises:
            ValueError: another node has the name, or it is not a name.
        """
        if not isinstance(name, str) or not name or name in self._nodes:
            raise ValueError(f"two values are called {str(name)[:80]!r}, or it is no name")
        self._nodes[name] = node

    def node(self, name: Any) -> torch.fx.Node:
        """Returns the node of a name.

        Raises:
            ValueError: no node has that name so far.
        """
        if not isinstance(name, str) or name not in self._nodes:
            raise ValueError(f"{str(name)[:80]!r} is used before it is defined")
        return self._nodes[name]

    def tensor(self, content: Any) -> torch.fx.Node:
        """Returns the node that an object with a ``name`` member refers to.

        Raises:
            ValueError: the object has no name, or no node has that name so far.
        """
        if not isinstance(content, dict):
            raise ValueError("a tensor has no name")
        return self.node(content.get("name"))

    def read(self, value: Any) -> Any:
        """Returns an argument of the graph's JSON as a node of fx takes it.

        Raises:
            UnknownFormError: the value is of a kind that is not read here.
            ValueError: the value is not as torch writes one.
        """
        kind, content = the_only(value)
        if kind in _CONSTANTS:
            return _CONSTANTS[kind](content)
        if kind == "as_tensor":
            return self.tensor(content)
        if kind == "as_tensors":
            return _list_of(self.tensor)(content)
        if kind == "as_nested_tensors":
            return _list_of(_list_of(self.tensor))(content)
        if kind in ("as_optional_tensor", "as_optional_tensors"):
            read = self._optional
            return read(content) if kind == "as_optional_tensor" else _list_of(read)(content)
        if kind in _SIZES:
            return self._size(content, _SIZES[kind])
        if kind[:-1] in _SIZES and kind.endswith("s"):
            return _list_of(lambda item: self._size(item, _SIZES[kind[:-1]]))(content)
        if kind == "as_device":
            return self._device
        raise UnknownFormError(f"a value of the kind {kind[:40]!r}")

    def _optional(self, content: Any) -> torch.fx.Node | None:
        kind, name = the_only(content)
        if kind not in ("as_none", "as_tensor"):
            raise ValueError(f"{kind[:40]!r} is neither a tensor nor none")
        return None if kind == "as_none" else self.tensor(name)

    def _size(self, content: Any, constant: str) -> Any:
        kind, value = the_only(content)
        if kind == "as_name":
            return self.node(value)
        if kind != constant:
            raise ValueError(f"{kind[:40]!r} is no size")
        return _CONSTANTS[constant](value)
