"""Converts between the arguments and results of the original model and the flat leaves that an artifact takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from toolchain.errors import UsageError
from toolchain.manifest.models import ClassSpec, Manifest
from windows_side.calling.input_rules import with_positional, wrong_call
from windows_side.execution.structure import leaves_of, with_classes

Call = tuple[tuple[Any, ...], dict[str, Any]]


def call_of(manifest: Manifest, leaves: Sequence[Any], device: torch.device) -> Call:
    """Returns the arguments and keywords of a call.

    Args:
        leaves: in the order of the manifest's inputs.
        device: where the tensors are moved.
    """
    placed = [leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    args, kwargs = pytree.tree_unflatten(placed, pytree.treespec_loads(manifest.call.in_spec))
    return args, kwargs


class CallConvention:
    """Flattens arguments and unflattens results by the structures that torch.export recorded.

    Flat calls, which most models have, skip pytree: it costs some 10 microseconds, as much as a small engine.
    """

    def __init__(
        self,
        in_spec: pytree.TreeSpec,
        out_spec: pytree.TreeSpec,
        argument_names: Sequence[str],
        classes: Sequence[ClassSpec] = (),
    ) -> None:
        """Prepares both directions from the structures of a call.

        Args:
            in_spec: the structure of ``(args, kwargs)``.
            out_spec: the structure of the result.
            argument_names: names of the parameters that were positional at export; a caller may use them as keywords.
            classes: the original's classes, where ``in_spec`` and ``out_spec`` have dicts and tuples.
        """
        self._in_spec = with_classes(in_spec, classes, "in_spec")
        self._out_spec = with_classes(out_spec, classes, "out_spec")
        self._names = argument_names
        positional, keywords = in_spec.child(0), in_spec.child(1)
        self._count = positional.num_children
        self._keywords: list[str] = list(keywords.context or [])
        self._flat_in = all(child.is_leaf() for child in (*positional.children(), *keywords.children()))
        self._flat_out = self._out_spec.type is tuple and all(child.is_leaf() for child in out_spec.children())

    def leaves(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Any]:
        """Returns the leaves of a call, in the order of the manifest's inputs.

        Raises:
            UsageError: the call's structure is not the exported one.
        """
        if len(args) < self._count:
            args, kwargs = with_positional(self._names[: self._count], args, kwargs)
        if len(args) != self._count or kwargs.keys() != set(self._keywords):
            raise self._wrong_call(args, kwargs)
        if self._flat_in:
            return (*args, *(kwargs[name] for name in self._keywords)) if kwargs else args
        try:
            return leaves_of(self._in_spec, (args, {name: kwargs[name] for name in self._keywords}))
        except ValueError as error:
            raise self._wrong_call(args, kwargs) from error

    def result(self, outputs: Sequence[Any]) -> Any:
        """Returns the program's flat outputs in the structure that the original model returns."""
        if self._out_spec.is_leaf():
            return outputs[0]
        return tuple(outputs) if self._flat_out else pytree.tree_unflatten(list(outputs), self._out_spec)

    def _wrong_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> UsageError:
        return wrong_call([*self._names[: self._count], *self._keywords], len(args), list(kwargs))
