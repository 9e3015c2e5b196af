"""Objects in a call whose classes this machine need not have: transformers' outputs, dataclasses, named tuples.

An artifact has a dict or a tuple in the place of each such object, and its manifest names the fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from toolchain.manifest.models import ClassSpec
from windows_side.calling.records import Record, field_tuple, flatten_record, unflatten_record


def _flatten_with_keys(record: Record) -> tuple[list[tuple[Any, Any]], Any]:
    values, context = flatten_record(record)
    return [(pytree.MappingKey(key), value) for key, value in zip(context[0], values, strict=True)], context


pytree.register_pytree_node(Record, flatten_record, unflatten_record, flatten_with_keys_fn=_flatten_with_keys)


def with_classes(spec: pytree.TreeSpec, classes: Sequence[ClassSpec], side: str) -> pytree.TreeSpec:
    """Returns a structure with records and field tuples in the places of the original's classes.

    Args:
        spec: a structure of dicts, lists and tuples.
        classes: the original's classes, which :func:`toolchain.checker.classes.check_classes` has accepted.
        side: which of the call's structures ``spec`` is, ``in_spec`` or ``out_spec``.
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
    """Returns the leaves of a value that has the structure of ``spec``.

    A record may be given as a dict, as an object with those attributes, or as an object whose class pytree knows here.
    A field tuple may be given as a tuple, as a list, or as an object with those attributes.

    Raises:
        ValueError: the value has a different structure.
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
