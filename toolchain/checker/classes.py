"""Checks that the classes in the manifest fit the call signature."""

from __future__ import annotations

import json
from typing import Any

from toolchain.artifact import Artifact
from toolchain.errors import MalformedArtifactError
from toolchain.io.strict_json import load_json
from toolchain.limits import TREESPEC
from toolchain.manifest.models import ClassSpec


def check_classes(artifact: Artifact) -> None:
    """Refuses a class whose place holds neither a dict nor a tuple, or one with other fields.

    Raises:
        MalformedArtifactError: the first class that does not fit, with the reason.
    """
    call, seen = artifact.manifest.call, set()
    for entry in artifact.manifest.classes:
        place = (entry.spec, tuple(entry.path))
        text = call.in_spec if entry.spec == "in_spec" else call.out_spec
        problem = "is there twice" if place in seen else _problem(entry, text)
        seen.add(place)
        if problem:
            raise MalformedArtifactError(
                f"the manifest's class {entry.name} {problem}",
                where=f"{artifact.path}, {entry.spec}",
                remedy="get the file again, or build it again",
            )


def _problem(entry: ClassSpec, treespec: str) -> str | None:
    node = _node_at(entry.path, treespec)
    if len(set(entry.fields)) != len(entry.fields):
        return "has a field twice"
    if node.get("type") == "builtins.tuple":
        named = all(field.isidentifier() and not field.startswith("_") for field in entry.fields)
        fits = named and len(entry.fields) == len(node["children_spec"])
        return None if fits else "has other fields than the tuple in its place"
    if node.get("type") == "builtins.dict":
        keys = json.loads(node["context"])
        fits = isinstance(keys, list) and all(isinstance(key, str) and key in entry.fields for key in keys)
        return None if fits else "has other fields than the dict in its place"
    return "is where neither a dict nor a tuple is"


def _node_at(path: list[int], treespec: str) -> dict[str, Any]:
    """Returns the treespec's node at a path, or an empty one; whether torch can read the rest is not checked here."""
    try:
        _, node = load_json(treespec.encode(), where="treespec", limit=TREESPEC)
        for index in path:
            node = node["children_spec"][index]
        json.loads(node["context"])
        len(node["children_spec"])
    except (LookupError, TypeError, ValueError, RecursionError):
        return {}
    return dict(node)
