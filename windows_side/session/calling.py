"""Converts a call to the leaves of its inputs, and the leaves of results to what the original model returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from toolchain.errors import IncompatibleError, MalformedArtifactError, UsageError
from toolchain.manifest.models import Manifest, ValueSpec
from windows_side.calling.input_rules import with_positional, wrong_call
from windows_side.session.structure import Structure, StructureError, read_structure


class Convention:
    """The calling convention of one model: as the original, or by names."""

    def __init__(self, manifest: Manifest, where: str) -> None:
        call = manifest.call
        classes = {side: [c for c in manifest.classes if c.spec == side] for side in ("in_spec", "out_spec")}
        structure = read_structure(call.in_spec, classes["in_spec"], where=f"{where}, in_spec")
        self._out = read_structure(call.out_spec, classes["out_spec"], where=f"{where}, out_spec")
        if structure.kind is not tuple or len(structure.children) != 2 or structure.children[1].kind is not dict:
            raise MalformedArtifactError("the call's structure is not one of arguments and keywords", where=where)
        self._args, self._kwargs = structure.children
        self._count = len(self._args.children)
        self._names = call.argument_names[: self._count]
        self._keywords: tuple[str, ...] = self._kwargs.keys
        self._flat = all(child.kind is None for child in (*self._args.children, *self._kwargs.children))
        # The names of all arguments in order, where each is a leaf and can be passed by its position or its name.
        self._order = (*self._names, *self._keywords) if self._flat and len(self._names) == self._count else None
        self._inputs = manifest.inputs
        self._outputs = manifest.outputs
        self._input_names, self._output_names = map(_names_if_unique, (self._inputs, self._outputs))
        if _leaf_count(structure) != len(manifest.inputs) or _leaf_count(self._out) != len(manifest.outputs):
            raise MalformedArtifactError("the call's structure has another number of leaves than it lists", where=where)

    def leaves(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Any]:
        """Returns the leaves of a call, in the order of the manifest's inputs.

        Raises:
            UsageError: the call's structure is not the exported one.
        """
        order = self._order
        if order is not None and len(args) <= self._count and len(args) + len(kwargs) == len(order):
            try:  # the usual call
                return [*args, *[kwargs[name] for name in order[len(args) :]]] if kwargs else args
            except KeyError:
                pass  # reported below
        if len(args) < self._count:
            args, kwargs = with_positional(self._names, args, kwargs)
        if len(args) != self._count or kwargs.keys() != set(self._keywords):
            raise self._wrong(args, kwargs)
        if self._flat:
            return (*args, *(kwargs[name] for name in self._keywords))
        try:
            return [*self._args.leaves(args), *self._kwargs.leaves(kwargs)]
        except StructureError as error:
            raise self._wrong(args, kwargs) from error

    def leaves_of_feed(self, feed: Mapping[str, Any]) -> Sequence[Any]:
        """Returns the leaves of a call by the names of inputs; an input whose value is fixed may be left out.

        Raises:
            UsageError: a name is missing, or is not an input's.
            IncompatibleError: two inputs have one name.
        """
        names = self._input_names or _unique(self._inputs, "inputs")
        if len(feed) == len(names):
            try:  # the usual call
                return [feed[name] for name in names]
            except KeyError:
                pass  # reported below
        needed = [spec.name for spec in self._inputs if spec.dtype]
        missing = [name for name in needed if name not in feed]
        extra = [str(name) for name in feed if name not in names]
        if missing or extra:
            problems = [
                f"{words} {', '.join(map(repr, found))}"
                for words, found in (("lacks", missing), ("has, and the model does not,", extra))
                if found
            ]
            raise UsageError(
                f"the feed {'; it '.join(problems)}", where="run()", remedy=f"pass exactly {', '.join(needed)}"
            )
        return [feed.get(spec.name, spec.value) for spec in self._inputs]

    def result(self, leaves: Sequence[Any]) -> Any:
        """Returns the leaves of a result in the structure that the original model returns."""
        return leaves[0] if self._out.kind is None else self._out.build(iter(leaves))

    def named_result(self, leaves: Sequence[Any]) -> dict[str, Any]:
        """Returns the leaves of a result by the names of outputs.

        Raises:
            IncompatibleError: two outputs have one name.
        """
        return dict(zip(self._output_names or _unique(self._outputs, "outputs"), leaves, strict=True))

    def _wrong(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> UsageError:
        return wrong_call([*self._names, *self._keywords], len(args), list(kwargs))


def _unique(specs: Sequence[ValueSpec], words: str) -> list[str]:
    """Returns the names of inputs or outputs, which must all be different.

    Raises:
        IncompatibleError: two have one name.
    """
    names = [spec.name for spec in specs]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise IncompatibleError(
            f"two of the model's {words} are called {twice[0]!r}, so that names cannot distinguish them",
            where="run()",
            remedy="call the session with arguments, as the original model",
        )
    return names


def _names_if_unique(specs: Sequence[ValueSpec]) -> list[str]:
    names = [spec.name for spec in specs]
    return names if len(set(names)) == len(names) else []


def _leaf_count(structure: Structure) -> int:
    return 1 if structure.kind is None else sum(map(_leaf_count, structure.children))
