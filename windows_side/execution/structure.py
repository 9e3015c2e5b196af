"""Objects in a call whose classes this machine need not have: transformers' outputs, dataclasses, named tuples.

In an artifact a dict or a tuple is in each one's place, and its manifest says what their fields were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

import torch
from torch.utils import _pytree as pytree

from toolchain.manifest.models import ClassSpec


class Record(dict[str, Any]):
    """A dict whose members are attributes too: ``y.logits``, ``y["logits"]`` and ``y[0]`` are one.

    It iterates over its keys, as a dict does. A field that was None in the original's result is None as an attribute,
    and is no member of the dict.
    """

    def __init__(self, members: Mapping[str, Any] | Sequence[tuple[str, Any]] = (), fields: Sequence[str] = ()) -> None:
        super().__init__()
        self.__dict__.update(dict.fromkeys(fields))  # a field goes before a method of the same name
        for name, value in dict(members).items():
            self[name] = value

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else _values(self)[key]

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self.__dict__[key] = value

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def to_tuple(self) -> tuple[Any, ...]:
        """The members, in their order."""
        return _values(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unflatten, _flatten(self)


def _values(record: Record) -> tuple[Any, ...]:
    return tuple(dict.values(record))  # a field may have any name, `values` too


def _flatten(record: Record) -> tuple[list[Any], tuple[tuple[str, ...], tuple[str, ...]]]:
    return list(_values(record)), (tuple(dict.keys(record)), tuple(record.__dict__))


def _unflatten(values: Any, context: tuple[tuple[str, ...], tuple[str, ...]]) -> Record:
    keys, fields = context
    return Record(list(zip(keys, values, strict=True)), fields)


def _flatten_with_keys(record: Record) -> tuple[list[tuple[Any, Any]], Any]:
    values, context = _flatten(record)
    return [(pytree.MappingKey(key), value) for key, value in zip(context[0], values, strict=True)], context


pytree.register_pytree_node(Record, _flatten, _unflatten, flatten_with_keys_fn=_flatten_with_keys)


class FieldTuple(tuple[Any, ...]):
    """A tuple whose members are attributes too, as a named tuple's are; pytree takes it for one."""

    _fields: tuple[str, ...] = ()

    def __new__(cls, *members: Any) -> FieldTuple:
        return super().__new__(cls, members)

    @classmethod
    def _make(cls, members: Any) -> FieldTuple:
        return cls(*members)

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self).__name__, self._fields, tuple(self))


@cache
def field_tuple(name: str, fields: tuple[str, ...]) -> type[FieldTuple]:
    """The class of tuples with these fields. ``collections.namedtuple`` would evaluate source text made of them."""
    members: dict[str, Any] = {field: property(itemgetter(index)) for index, field in enumerate(fields)}
    return type(name, (FieldTuple,), {**members, "_fields": fields, "__module__": __name__})


def _restored(name: str, fields: tuple[str, ...], members: tuple[Any, ...]) -> FieldTuple:
    return field_tuple(name, fields)(*members)


def with_classes(spec: pytree.TreeSpec, classes: Sequence[ClassSpec], side: str) -> pytree.TreeSpec:
    """A plain structure in which records and tuples of fields are in the original classes' places.

    Args:
        classes: that fit the structure, as :func:`toolchain.checker.classes.check_classes` asks.
        side: of which spec it is.
    """
    places = {tuple(entry.path): entry for entry in classes if entry.spec == side}
    return _with_classes(spec, (), places) if places else spec


def _with_classes(
    spec: pytree.TreeSpec, path: tuple[int, ...], places: Mapping[tuple[int, ...], ClassSpec]
) -> pytree.TreeSpec:
    if spec.is_leaf():
        return spec
    children = [_with_classes(child, (*path, index), places) for index, child in enumerate(spec.children())]
    entry = places.get(path)
    if entry is None:
        return pytree.TreeSpec(spec.type, spec.context, children)
    fields = tuple(entry.fields)
    if spec.type is tuple:
        return pytree.TreeSpec(pytree.namedtuple, field_tuple(entry.name.rpartition(".")[2], fields), children)
    return pytree.TreeSpec(Record, (tuple(spec.context), fields), children)


def leaves_of(spec: pytree.TreeSpec, value: Any) -> list[Any]:
    """The leaves of a value that has the structure of ``spec``.

    In the place of a record comes a dict, an object with those attributes, or one whose class pytree knows here; in
    that of a tuple of fields any tuple or list, or an object with those attributes.

    Raises:
        ValueError: it has another structure.
    """
    if spec.is_leaf():
        return [value]
    children = _children(spec, value)
    if len(children) != spec.num_children:
        raise ValueError(f"{len(children)} members instead of {spec.num_children}")
    return [leaf for child, part in zip(spec.children(), children, strict=True) for leaf in leaves_of(child, part)]


def _children(spec: pytree.TreeSpec, value: Any) -> Sequence[Any]:
    if spec.type is Record:
        return _members(value, *spec.context)
    if spec.type is pytree.namedtuple:
        fields = spec.context._fields
        in_order = isinstance(value, (tuple, list)) and getattr(value, "_fields", fields) == fields
        return value if in_order else _members(value, fields, fields)
    if spec.type is dict:
        if not isinstance(value, Mapping) or value.keys() != set(spec.context):
            raise ValueError("no dict with those keys")
        return [value[key] for key in spec.context]
    if type(value) is not spec.type:
        raise ValueError(f"a {type(value).__name__} instead of a {spec.type.__name__}")
    children, context = pytree.SUPPORTED_NODES[spec.type].flatten_fn(value)
    if context != spec.context:
        raise ValueError("another structure")
    return list(children)


def _members(value: Any, keys: Sequence[str], fields: Sequence[str]) -> Sequence[Any]:
    if isinstance(value, Mapping):
        extra = [key for key in value if key not in keys and (key not in fields or value[key] is not None)]
        if extra or any(key not in value for key in keys):
            raise ValueError("other keys")
        return [value[key] for key in keys]
    if isinstance(value, torch.Tensor):
        raise ValueError("a tensor")  # it has many attributes
    if all(hasattr(value, key) for key in keys):
        if any(getattr(value, name, None) is not None for name in fields if name not in keys):
            raise ValueError("a field that was None at export")
        return [getattr(value, key) for key in keys]
    definition = pytree.SUPPORTED_NODES.get(type(value))
    if definition is None or type(value).__module__ in ("builtins", "collections"):
        raise ValueError(f"a {type(value).__name__}")
    return list(definition.flatten_fn(value)[0])
