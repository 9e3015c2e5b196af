"""The original model on its example: what an exported program's outputs are compared with."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from linux_side.frontend.hidden_state import own_copy, state_kept
from linux_side.frontend.sliding_caches import ring_caches
from toolchain.errors import BuildFailedError


class Original:
    """The original model with its example, on which it has run once.

    Attributes:
        eager: whether the model is the original; False for the module of an exported program.
        model: the model, or a copy that shares its parameters.
        leaves: the example's leaves.
        structure: the pytree spec of ``(args, kwargs)``.
        outputs: the outputs' leaves for the example; None where a leaf is not a tensor.
        seconds: how long that run took.
    """

    def __init__(
        self, model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], *, eager: bool = True
    ) -> None:
        """Runs the model on its example.

        Args:
            model: the model; its tensors keep their values.
            args: the example's positional arguments.
            kwargs: the example's keyword arguments.
            eager: False if the model is an exported program's module and the original is not available.

        Raises:
            BuildFailedError: the model fails on its example.
        """
        self.eager = eager
        # A run may change more than tensors, such as the length of a cache, and torch.export needs the initial state.
        self.model = (own_copy(model) if eager else None) or model
        self.leaves, self.structure = pytree.tree_flatten((tuple(args), dict(kwargs)))
        with state_kept(self.model):
            try:
                start = time.monotonic()
                self.outputs = self.run(self.model, self.leaves)
                self.seconds = time.monotonic() - start
            except Exception as error:
                raise BuildFailedError(
                    f"the model raised {type(error).__name__} on its own example: {str(error).strip()[:200]}",
                    where="golden outputs",
                    remedy="check the example inputs; --golden 0 builds without golden I/O",
                ) from error

    def run(self, model: torch.nn.Module, leaves: Sequence[Any]) -> list[torch.Tensor | None]:
        """Calls a model on copies of the leaves of its arguments; returns the outputs' leaves, None for non-tensors."""
        copies = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(copies, self.structure)
        eager = torch.compiler.set_stance("force_eager")  # compiled parts of the model run uncompiled
        with torch.no_grad(), ring_caches(model), eager:
            result = model(*args, **kwargs)
        # An output may share memory with the model's state, which later runs change.
        return [leaf.clone() if isinstance(leaf, torch.Tensor) else None for leaf in pytree.tree_leaves(result)]
