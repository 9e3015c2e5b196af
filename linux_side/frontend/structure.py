"""Replaces classes in a model's call by dicts and tuples, which every torch can read, and records the classes.

A program's structure of inputs and outputs (its treespecs) may name classes: a ModelOutput of transformers, a
dataclass, a named tuple. Readers of the program would then need their packages. In the artifact, a named tuple is a
tuple and any other object is a dict; :class:`~toolchain.manifest.models.ClassSpec` records the class.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal

from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from toolchain.errors import BuildFailedError
from toolchain.manifest.models import ClassSpec

Side = Literal["in_spec", "out_spec"]
Node = dict[str, Any]  # of a treespec's JSON: type, context, children_spec

_NAMED_TUPLE = "collections.namedtuple"
# The types that every torch can read, by the names under which torch registers them.
_PLAIN = {
    "builtins.tuple",
    "builtins.list",
    "builtins.dict",
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.deque",
    "torch.fx.immutable_collections.immutable_list",
    "torch.fx.immutable_collections.immutable_dict",
    "torch.Size",
}
_TUPLE_CONTEXT = "null"
_LEAF: Node = {"type": None, "context": None, "children_spec": []}


def plain_program(program: ExportedProgram) -> list[ClassSpec]:
    """Replaces the classes in a program's structure, in place.

    Returns:
        The classes in the structure of the program's own call, without those of its submodules' calls.
    """
    found: list[ClassSpec] = []
    for entry in program.module_call_graph:
        signature = entry.signature
        if signature is None:
            continue
        sides: tuple[tuple[Side, Any], ...] = (("in_spec", signature.in_spec), ("out_spec", signature.out_spec))
        for side, spec in sides:
            classes: list[ClassSpec] = []
            node = _without_classes(_node(spec), side, (), {}, classes)
            if not classes and _same(node, spec):
                continue
            setattr(signature, side, pytree.treespec_loads(json.dumps([1, node])))
            if not entry.fqn:
                found += classes
    _plain_example(program)
    return found


def plain_spec(spec: pytree.TreeSpec) -> pytree.TreeSpec:
    """Returns a structure in which dicts and tuples replace the classes."""
    return pytree.treespec_loads(json.dumps([1, _without_classes(_node(spec), "in_spec", (), {}, [])]))


def plain_document(document: dict[str, Any]) -> list[ClassSpec]:
    """Does the same in a program's parsed graph, for which the classes need not be importable."""
    graph = document["graph_module"]
    fields = {
        name: list(definition.get("field_names", []))
        for name, definition in (graph.get("treespec_namedtuple_fields") or {}).items()
    }
    found: list[ClassSpec] = []
    for entry in graph.get("module_call_graph") or []:
        signature = entry.get("signature") or {}
        sides: tuple[Side, Side] = ("in_spec", "out_spec")
        for side in sides:
            if not isinstance(signature.get(side), str):
                continue
            classes: list[ClassSpec] = []
            protocol, node = json.loads(signature[side])
            plain = _without_classes(node, side, (), fields, classes)
            if classes:
                signature[side] = json.dumps([protocol, plain])
            if not entry.get("fqn"):
                found += classes
    if found:
        graph["treespec_namedtuple_fields"] = {}
    return found


def _same(node: Node, spec: pytree.TreeSpec) -> bool:
    try:
        return bool(json.loads(pytree.treespec_dumps(spec))[1] == node)
    except NotImplementedError:
        return False


def _plain_example(program: ExportedProgram) -> None:
    """Converts the example inputs to the structure that the program now has."""
    example = program.example_inputs
    if example is None:
        return
    leaves, spec = pytree.tree_flatten(example)
    plain = program.call_spec.in_spec
    if plain is not None and spec != plain and len(leaves) == plain.num_leaves:
        program.example_inputs = pytree.tree_unflatten(leaves, plain)


def _node(spec: pytree.TreeSpec) -> Node:
    """Returns a treespec in its JSON form, including classes without a serialized name."""
    if spec.is_leaf():
        return dict(_LEAF)
    children = [_node(child) for child in spec.children()]
    if spec.type is pytree.namedtuple or pytree.is_structseq_class(spec.type):
        cls = spec.context if spec.type is pytree.namedtuple else spec.type
        fields = list(getattr(cls, "_fields", None) or cls.__match_args__)
        return {"type": _NAMED_TUPLE, "context": _name_of(cls), "children_spec": children, "fields": fields}
    definition = pytree.SUPPORTED_SERIALIZED_TYPES[spec.type]
    if definition.serialized_type_name in _PLAIN:
        dump = definition.to_dumpable_context
        keys = list(map(_plain_key, spec.context)) if isinstance(spec.context, list) else spec.context
        context = dump(spec.context) if dump else json.dumps(keys)
        return {"type": definition.serialized_type_name, "context": context, "children_spec": children}
    keys, fields = _members(spec)
    return {"type": _name_of(spec.type), "keys": keys, "children_spec": children, "fields": fields}


def _without_classes(
    node: Node, side: Side, path: tuple[int, ...], named_tuples: Mapping[str, list[str]], found: list[ClassSpec]
) -> Node:
    if node["type"] is None:
        return node
    before = len(found)
    children = [
        _without_classes(child, side, (*path, index), named_tuples, found)
        for index, child in enumerate(node["children_spec"])
    ]
    if node["type"] in _PLAIN:
        return {"type": node["type"], "context": node["context"], "children_spec": children}
    if node["type"] == _NAMED_TUPLE:
        name, kind, context = node["context"], "builtins.tuple", _TUPLE_CONTEXT
        fields = node.get("fields") or named_tuples.get(name) or [f"item_{index}" for index in range(len(children))]
    else:
        name, kind = node["type"], "builtins.dict"
        keys, fields = (node["keys"], node["fields"]) if "keys" in node else _members_of_context(node)
        context = json.dumps(keys)
    name = re.sub(r"[^\w.<>]", "_", name)[:500]  # a serialized name may contain any text
    found.insert(before, ClassSpec(spec=side, path=list(path), name=name, fields=fields))
    return {"type": kind, "context": context, "children_spec": children}


def _members(spec: pytree.TreeSpec) -> tuple[list[str], list[str]]:
    """Returns the names of an object's children, and of all its fields."""
    cls, context, count = spec.type, spec.context, spec.num_children
    keys = _names_in(context, count) or _attributes(spec) or [str(index) for index in range(count)]
    declared = [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    return keys, list(dict.fromkeys([*declared, *keys]))


def _members_of_context(node: Node) -> tuple[list[str], list[str]]:
    count = len(node["children_spec"])
    context = json.loads(node["context"])
    keys = _names_in(context, count) or [str(index) for index in range(count)]
    # For its own dataclasses, torch lists the fields that were None after the others.
    none = context[1] if _names_in(context, count) and isinstance(context[0], list) else []
    return keys, [*keys, *none]


def _names_in(context: Any, count: int) -> list[str] | None:
    """Returns the children's names if the context contains them: as a list, or in torch's form for a dataclass."""
    if isinstance(context, (list, tuple)) and len(context) == 2 and all(isinstance(part, list) for part in context):
        context = context[0]
    if not isinstance(context, (list, tuple)) or not all(isinstance(name, str) for name in context):
        return None
    names = list(context)
    return names if len(names) == count and len(set(names)) == count else None


def _attributes(spec: pytree.TreeSpec) -> list[str] | None:
    """Returns the attributes in which an object stores its children, found by unflattening one from marker objects."""
    marks = [object() for _ in range(spec.num_children)]
    try:
        members = vars(pytree.SUPPORTED_NODES[spec.type].unflatten_fn(marks, spec.context))
    except Exception:  # noqa: BLE001 - a class of the user's may refuse markers with any class of error
        return None
    names = [next((name for name, value in members.items() if value is mark), None) for mark in marks]
    return [name for name in names if name is not None] if None not in names else None


def _name_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _plain_key(key: Any) -> Any:
    """Returns a dict's key in a form that JSON has; an enum's value or name, because readers lack the enum.

    Raises:
        BuildFailedError: JSON has no form for the key.
    """
    if isinstance(key, Enum):
        return key.value if isinstance(key.value, (str, int)) else key.name
    if key is None or isinstance(key, (str, int, float)):
        return key
    raise BuildFailedError(
        f"the model takes or returns a dict with the key {key!r}, which cannot be written to a file",
        where="model",
        remedy="use strings or numbers as keys",
    )
