"""Stand-ins for objects whose classes this machine need not have: a dict and a tuple with attributes.

An artifact has a dict or a tuple in the place of each such object, and its manifest names the fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any


class Record(dict[str, Any]):
    """A dict whose members are attributes too: ``y.logits``, ``y["logits"]`` and ``y[0]`` are the same object.

    It iterates over its keys, as a dict does. A field that was None in the original's result is None as an attribute,
    and is not a member of the dict.
    """

    def __init__(self, members: Mapping[str, Any] | Sequence[tuple[str, Any]] = (), fields: Sequence[str] = ()) -> None:
        super().__init__()
        self.__dict__.update(dict.fromkeys(fields))  # a field hides a method of the same name
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
        """Returns the members in their order, as transformers' outputs do."""
        return _values(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return unflatten_record, flatten_record(self)


def _values(record: Record) -> tuple[Any, ...]:
    return tuple(dict.values(record))  # a field may have any name, `values` too


def flatten_record(record: Record) -> tuple[list[Any], tuple[tuple[str, ...], tuple[str, ...]]]:
    """Returns the members, and what :func:`unflatten_record` needs beside them: the keys and the fields."""
    return list(_values(record)), (tuple(dict.keys(record)), tuple(record.__dict__))


def unflatten_record(values: Any, context: tuple[tuple[str, ...], tuple[str, ...]]) -> Record:
    """Inverts :func:`flatten_record`."""
    keys, fields = context
    return Record(list(zip(keys, values, strict=True)), fields)


class FieldTuple(tuple[Any, ...]):
    """A tuple whose members are attributes too. It has a named tuple's methods, so pytree treats it as one."""

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
    """Returns the class of tuples with these fields.

    ``collections.namedtuple`` is not used: it evaluates source text that is made of the names, which a file gives.
    """
    members: dict[str, Any] = {field: property(itemgetter(index)) for index, field in enumerate(fields)}
    return type(name, (FieldTuple,), {**members, "_fields": fields, "__module__": __name__})


def _restored(name: str, fields: tuple[str, ...], members: tuple[Any, ...]) -> FieldTuple:
    return field_tuple(name, fields)(*members)
