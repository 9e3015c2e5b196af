"""Reads the structure of calls and results from the manifest's text, without torch.

A structure has tuples, lists and dicts of arrays, and records and field tuples in the places of classes. A structure
that names a class itself (in artifacts of schema version 1) needs torch, with which such a class is registered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolchain.errors import IncompatibleError, MalformedArtifactError
from toolchain.io.strict_json import load_json
from toolchain.limits import TREESPEC
from toolchain.manifest.models import ClassSpec
from windows_side.calling.records import Record, field_tuple

_SEQUENCES: dict[str, type] = {"builtins.tuple": tuple, "builtins.list": list}
_MAPPINGS: dict[str, type] = {"builtins.dict": dict, "collections.OrderedDict": OrderedDict}


class StructureError(ValueError):
    """A value has a different structure. The caller reports it with the names of the arguments."""


@dataclass(frozen=True)
class Structure:
    """A leaf, or a container and its members.

    Attributes:
        kind: tuple, list, dict, OrderedDict, Record, or a class of field tuples; None for a leaf.
        keys: the keys of a dict or a record.
        children: the structures of the members, in order.
        fields: the fields of a record or a field tuple. A record's fields that are not keys were None at export.
    """

    kind: type | None = None
    keys: tuple[Any, ...] = ()
    children: tuple[Structure, ...] = ()
    fields: tuple[str, ...] = ()

    def leaves(self, value: Any) -> Iterator[Any]:
        """Yields the leaves of a value that has this structure.

        A record may be given as a dict or as an object with those attributes; a field tuple as a tuple, as a list, or
        as an object with those attributes.

        Raises:
            StructureError: the value has a different structure.
        """
        if self.kind is None:
            yield value
            return
        members = self._members(value)
        if len(members) != len(self.children):
            raise StructureError
        for child, member in zip(self.children, members, strict=True):
            yield from child.leaves(member)

    def build(self, leaves: Iterator[Any]) -> Any:
        """Returns a value of this structure with these leaves; the inverse of :meth:`leaves`."""
        if self.kind is None:
            return next(leaves)
        members = [child.build(leaves) for child in self.children]
        if self.kind is Record:
            return Record(list(zip(self.keys, members, strict=True)), self.fields)
        if self.kind in _MAPPINGS.values():
            return self.kind(zip(self.keys, members, strict=True))
        return self.kind(members) if self.kind in _SEQUENCES.values() else self.kind(*members)

    def _members(self, value: Any) -> Sequence[Any]:
        if self.kind is Record:
            return _attributes(value, self.keys, self.fields)
        if self.kind in _MAPPINGS.values():
            if not isinstance(value, Mapping) or value.keys() != set(self.keys):
                raise StructureError
            return [value[key] for key in self.keys]
        if self.fields:
            in_order = isinstance(value, (tuple, list)) and getattr(value, "_fields", self.fields) == self.fields
            return value if in_order else _attributes(value, self.fields, self.fields)
        if type(value) is not self.kind or not isinstance(value, (tuple, list)):
            raise StructureError
        return value


def read_structure(text: str, classes: Sequence[ClassSpec] = (), *, where: str) -> Structure:
    """Reads what ``torch.utils._pytree.treespec_dumps`` wrote.

    Args:
        classes: the classes of this structure, which :func:`toolchain.checker.classes.check_classes` has accepted.

    Raises:
        MalformedArtifactError: the text is not such a structure.
        IncompatibleError: the structure names a class, which only torch knows.
    """
    document = load_json(text.encode(), where=where, limit=TREESPEC)
    if not isinstance(document, list) or len(document) != 2 or document[0] != 1:
        raise MalformedArtifactError("the call's structure cannot be read", where=where)
    places = {tuple(entry.path): entry for entry in classes}
    try:
        return _read(document[1], (), places, where)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise MalformedArtifactError(f"the call's structure cannot be read: {error}", where=where) from error


def _read(node: Any, path: tuple[int, ...], places: Mapping[tuple[int, ...], ClassSpec], where: str) -> Structure:
    name = node["type"]
    if name is None:
        return Structure()
    children = tuple(_read(child, (*path, i), places, where) for i, child in enumerate(node["children_spec"]))
    entry = places.get(path)
    fields = tuple(entry.fields) if entry else ()
    if name in _SEQUENCES:
        if entry is None:
            return Structure(_SEQUENCES[name], (), children)
        return Structure(field_tuple(entry.name.rpartition(".")[2], fields), (), children, fields)
    if name in _MAPPINGS:
        keys = tuple(load_json(node["context"].encode(), where=where, limit=TREESPEC))
        if len(keys) != len(children):
            raise ValueError("a dict has another number of keys than of values")
        return Structure(Record if entry else _MAPPINGS[name], keys, children, fields)
    raise IncompatibleError(
        f"the model's arguments or results are of the class {name}, which only PyTorch knows",
        where=where,
        remedy="use windows_side.load; or build the model again with this trtcross: its artifact needs no such class",
    )


def _attributes(value: Any, keys: Sequence[str], fields: Sequence[str]) -> Sequence[Any]:
    """Returns the members of a mapping or an object; a field that was None at export must be None or missing.

    Raises:
        StructureError: a member is missing, or there is another one.
    """
    if isinstance(value, Mapping):
        extra = [key for key in value if key not in keys and (key not in fields or value[key] is not None)]
        if extra or any(key not in value for key in keys):
            raise StructureError
        return [value[key] for key in keys]
    if hasattr(value, "__dlpack__") or hasattr(value, "__array__"):
        raise StructureError  # an array has many attributes
    if not all(hasattr(value, key) for key in keys):
        raise StructureError
    if any(getattr(value, name, None) is not None for name in fields if name not in keys):
        raise StructureError
    return [getattr(value, key) for key in keys]
