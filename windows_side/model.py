"""A loaded artifact, called as the original model was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from toolchain.errors import UsageError
from toolchain.manifest import DynamicSize, Manifest, ValueSpec


class LoadedModel(torch.nn.Module):
    """Runs an artifact's program: same call signature and output structure as the original model.

    Attributes:
        program: the exported program, its engines in place.
        manifest: the artifact's.
        device: where everything runs.
    """

    def __init__(self, program: ExportedProgram, manifest: Manifest, device: torch.device) -> None:
        super().__init__()
        self.program = program
        self.manifest = manifest
        self.device = device
        self._in_spec = program.call_spec.in_spec
        self._out_spec = program.call_spec.out_spec
        self._checks = [_LeafCheck(spec, device) for spec in manifest.inputs]
        self._equal_sizes = _equal_sizes(manifest.inputs)
        self._names = manifest.call.argument_names
        flat = program.module(check_guards=False)
        flat.graph.set_codegen(torch.fx.graph.CodeGen())
        flat.recompile()
        self._flat: Callable[..., Any] = flat
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model.

        Raises:
            UsageError: an input is missing, on another device, of another dtype, or outside its range.
        """
        leaves = self._flatten(args, kwargs)
        for check, leaf in zip(self._checks, leaves, strict=True):
            check(leaf)
        if self._equal_sizes:
            self._check_equal_sizes(leaves)
        with torch.no_grad():
            outputs = self._flat(*leaves)
        return pytree.tree_unflatten(list(outputs), self._out_spec)

    def train(self, mode: bool = True) -> LoadedModel:
        if mode:
            raise UsageError(
                "a compiled model cannot be trained", where="train()", remedy="train the original, then build again"
            )
        self.training = False  # and no further: torch's unlifted program refuses train() and eval() alike
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> LoadedModel:
        raise UsageError(
            "a loaded model cannot be moved or cast: its engines stay where and as they were made",
            where="to()",
            remedy="load it again with device=, or build it with another --precision",
        )

    def _flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Any]:
        positional, keywords = self._in_spec.child(0), self._in_spec.child(1)
        if len(args) < positional.num_children:
            args, kwargs = self._positional(args, kwargs, positional.num_children)
        wanted = keywords.context or []
        if len(args) != positional.num_children or set(kwargs) != set(wanted):
            raise self._wrong_call(args, kwargs)
        leaves, spec = pytree.tree_flatten((args, {name: kwargs[name] for name in wanted}))
        if spec != self._in_spec:
            raise self._wrong_call(args, kwargs)
        return leaves

    def _positional(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], count: int
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Takes arguments that were positional at export from the keywords."""
        rest = dict(kwargs)
        names = self._names[len(args) : count]
        return (*args, *(rest.pop(name) for name in names if name in rest)), rest

    def _check_equal_sizes(self, leaves: Sequence[Any]) -> None:
        for places in self._equal_sizes:
            sizes = {leaves[index].shape[dim] for index, dim in places}
            if len(sizes) > 1:
                words = [
                    f"{self.manifest.inputs[index].name!r} has size {leaves[index].shape[dim]} in dimension {dim}"
                    for index, dim in places
                ]
                raise UsageError(
                    f"sizes that must be equal are not: {', '.join(words)}",
                    where="inputs",
                    remedy="`trtcross inspect` shows equal sizes by the same symbol",
                )

    def _wrong_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> UsageError:
        names = ", ".join(spec.name for spec in self.manifest.inputs)
        given = f"{len(args)} positional" + (f" and {', '.join(kwargs)}" if kwargs else "")
        return UsageError(
            f"the model was called with {given} arguments, not in the structure that it was exported with",
            where=f"inputs {names}",
            remedy="call it as the original model; `trtcross inspect` lists its inputs",
        )


def _equal_sizes(specs: Sequence[ValueSpec]) -> list[list[tuple[int, int]]]:
    """For each symbol that several dimensions have, their inputs and dimensions."""
    places: dict[str, list[tuple[int, int]]] = {}
    for index, spec in enumerate(specs):
        for dim, size in enumerate(spec.shape or []):
            if isinstance(size, DynamicSize):
                places.setdefault(size.symbol, []).append((index, dim))
    return [found for found in places.values() if len(found) > 1]


class _LeafCheck:
    """Compares one input with what the manifest says of it."""

    def __init__(self, spec: ValueSpec, device: torch.device) -> None:
        self._spec = spec
        self._dtype = getattr(torch, spec.dtype) if spec.dtype else None
        self._device = device
        self._shape = spec.shape or []
        self._static = torch.Size(self._shape) if all(isinstance(s, int) for s in self._shape) else None

    def __call__(self, leaf: Any) -> None:
        if self._dtype is None:
            if leaf != self._spec.value or type(leaf) is not type(self._spec.value):
                raise self._wrong(f"is {leaf!r}; it was fixed at {self._spec.value!r} when the model was exported")
            return
        if not isinstance(leaf, torch.Tensor):
            raise self._wrong(f"is a {type(leaf).__name__}, not a tensor")
        if leaf.dtype is not self._dtype:
            raise self._wrong(f"has dtype {leaf.dtype}, not {self._dtype}")
        if leaf.device.type != self._device.type or self._device.index not in (None, leaf.device.index):
            raise self._wrong(f"is on {leaf.device}, not on {self._device}")
        if leaf.shape != self._static:
            self._check_shape(leaf.shape)

    def _check_shape(self, shape: torch.Size) -> None:
        if len(shape) != len(self._shape):
            raise self._wrong(f"has {len(shape)} dimensions, not {len(self._shape)}")
        for dim, (size, wanted) in enumerate(zip(shape, self._shape, strict=True)):
            if isinstance(wanted, DynamicSize):
                if size < wanted.min or (wanted.max is not None and size > wanted.max):
                    raise self._wrong(f"has size {size} in dimension {dim}, outside {wanted.min} to {wanted.max}")
            elif size != wanted:
                raise self._wrong(f"has size {size} in dimension {dim}, not {wanted}")

    def _wrong(self, problem: str) -> UsageError:
        return UsageError(
            f"the input {self._spec.name!r} {problem}",
            where=f"input {self._spec.name}",
            remedy="`trtcross inspect` lists dtypes, devices and ranges",
        )
