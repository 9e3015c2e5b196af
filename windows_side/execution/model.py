"""A loaded artifact, called as the original model was."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from queue import SimpleQueue
from threading import Lock
from typing import Any

import torch
from torch.export import ExportedProgram

from toolchain.errors import UsageError
from toolchain.manifest.models import Manifest
from windows_side.execution.call import CallConvention
from windows_side.execution.call_order import CallOrder
from windows_side.execution.cuda_graphs import CapturedProgram
from windows_side.execution.flat_program import FlatProgram
from windows_side.execution.input_checks import InputChecks
from windows_side.execution.kernel_cache import KeptKernels
from windows_side.execution.progress import compiling
from windows_side.launch_lock import LAUNCH_LOCK


class LoadedModel(torch.nn.Module):
    """Runs an artifact's program, with the call signature and output structure of the original model.

    Threads and streams may share it. Calls run one after another, unless it was loaded with several execution contexts.
    Each call's outputs are its own.

    Attributes:
        manifest: the artifact's manifest.
        device: where weights, engines and calls are.
    """

    def __init__(
        self,
        program: FlatProgram,
        manifest: Manifest,
        device: torch.device,
        *,
        cuda_graphs: bool = False,
        cache: KeptKernels | None = None,
        progress: bool = False,
        beside: Sequence[FlatProgram] = (),
    ) -> None:
        """Joins a program, its engines and the structure of a call.

        Args:
            cuda_graphs: whether to replay the whole program as a CUDA graph.
            cache: where compiled kernels are kept, or None.
            progress: whether to show on stderr that the first call compiles kernels.
            beside: further copies of the program with execution contexts of their own, for calls at the same time.
        """
        super().__init__()
        self._program = program
        self.manifest = manifest
        self.device = device
        self._call = CallConvention(program.in_spec, program.out_spec, manifest.call.argument_names, manifest.classes)
        self._checks = InputChecks(manifest.inputs, device, manifest.guards)
        self._flat = program.module
        self._captured = CapturedProgram(program, device) if cuda_graphs else None
        self._cache = cache
        self._show_progress = progress and not self.kernels_are_cached
        self._lock = Lock()
        self._free: SimpleQueue[LoadedModel | None] = SimpleQueue()
        self._free.put(None)  # stands for this model, which must not refer to itself
        for other in beside:
            self._free.put(LoadedModel(other, manifest, device, cuda_graphs=cuda_graphs, cache=cache))
        self._is_alone = not beside
        self._is_only_gpu = device.type != "cuda" or torch.cuda.device_count() == 1
        self._order = CallOrder(device)
        self.eval()
        # Set last, because attributes are released in the order in which they were set.
        self._owner = _GpuResources(self._order, device, program, self._flat, self._captured)

    @cached_property
    def program(self) -> ExportedProgram:
        """The exported program with its engines in place, which ``torch.export.save`` can save.

        It is read when it is first asked for: that imports torch.export's reader, which takes seconds.
        """
        return self._program.exported()

    @property
    def kernels_are_cached(self) -> bool:
        """Whether the kernel cache had the kernels; otherwise the first call compiles them, which takes seconds."""
        return self._cache is not None and self._cache.warm

    def keep_kernels(self) -> None:
        """Writes the kernels that have been compiled so far to the kernel cache, which otherwise happens at exit."""
        if self._cache is not None:
            self._cache.save()

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """The tensors that calls change and later calls read, such as a key-value cache, by name; not copies."""
        return {name: self._flat.get_buffer(name) for name in self._program.state}

    def share_state(self, other: LoadedModel) -> None:
        """Makes this model read and write the state of another one; its own state is released.

        A prefill and a decode artifact of one language model so share one key-value cache. The calls of both then run
        one after another. CUDA graphs that were captured before are captured again.

        Args:
            other: a model on the same device, whose state has every tensor of this one's with the same name, shape and
                dtype.

        Raises:
            UsageError: the other model lacks such a tensor.
        """
        theirs = other.state
        for name, tensor in self.state.items():
            _require_same_state(name, tensor, theirs.get(name))
        with self._lock:
            self._order.wait_for_the_last_call()
            for name in self.state:
                self._put_state(name, theirs[name])
            if self._captured is not None:
                self._captured = CapturedProgram(self._program, self.device)
            self._order = other._order
            self._owner = _GpuResources(self._order, self.device, self._program, self._flat, self._captured)
        self._lock = other._lock

    def _put_state(self, name: str, tensor: torch.Tensor) -> None:
        path, _, leaf = name.rpartition(".")
        setattr(self._flat.get_submodule(path), leaf, tensor)
        if "program" in self.__dict__:  # already made; one that is made later uses the new tensor
            for kept in (self.program.state_dict, self.program.constants):
                if name in kept:
                    kept[name] = tensor

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model.

        Raises:
            UsageError: an input is missing, has the wrong device or dtype, or is outside its range, or sizes violate a
                guard.
        """
        if self._is_alone:
            return self._forward(args, kwargs)
        free = self._free.get()
        try:
            return (free or self)._forward(args, kwargs)
        finally:
            self._free.put(free)

    def _forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        leaves = self._call.leaves(args, kwargs)
        with self._lock:
            self._order.follow_the_last_call()
            outputs = self._captured.replay_in_place(leaves) if self._captured else None
            if outputs is None:
                self._checks(leaves)
                outputs = self._run(leaves)
        return self._call.result(outputs)

    def _run(self, leaves: Sequence[Any]) -> list[Any]:
        run: Callable[..., list[Any]] = self._captured or self._launch
        with _no_grad(), self._current_gpu():
            outputs = self._first_call(run, leaves) if self._show_progress else run(*leaves)
            if self._cache is not None:
                self._cache.after_call(leaves)
        return outputs

    def _launch(self, *leaves: Any) -> list[Any]:
        with LAUNCH_LOCK.launching:
            outputs: list[Any] = self._flat.forward(*leaves)
        return outputs

    def train(self, mode: bool = True) -> LoadedModel:
        if mode:
            raise UsageError(
                "a compiled model cannot be trained", where="train()", remedy="train the original, then build again"
            )
        return super().train(False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> LoadedModel:
        raise UsageError(
            "a loaded model cannot be moved or cast: its engines stay where and as they were made",
            where="to()",
            remedy="load it again with device=, or build it with another --precision",
        )

    def _first_call(self, run: Callable[..., list[Any]], leaves: Sequence[Any]) -> list[Any]:
        self._show_progress = False
        with compiling():
            return run(*leaves)

    def _current_gpu(self) -> AbstractContextManager[Any]:
        """Makes the model's GPU the current one, because engines run on the current GPU."""
        if self._is_only_gpu or self.device.index == torch.cuda.current_device():
            return _HERE
        return torch.cuda.device(self.device)


class _GpuResources:
    """Owns a model's GPU resources, and releases them after its last call has finished.

    The model itself has no ``__del__``: that would run while a weak reference can still return the model.
    """

    def __init__(self, order: CallOrder, device: torch.device, *parts: object) -> None:
        self._order = order
        self._device = device
        self._parts = parts

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return
        self._order.wait_for_the_last_call()
        # TensorRT leaves an engine's GPU the current one.
        with torch.cuda.device(self._device) if self._device.type == "cuda" else _HERE:
            del self._parts


def _require_same_state(name: str, ours: torch.Tensor, theirs: torch.Tensor | None) -> None:
    def described(tensor: torch.Tensor) -> str:
        return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} on {tensor.device}"

    if theirs is None or (ours.shape, ours.dtype, ours.device) != (theirs.shape, theirs.dtype, theirs.device):
        there = described(theirs) if theirs is not None else "missing"
        raise UsageError(
            f"the state {name} is {described(ours)}, and {there} in the other model",
            where="share_state()",
            remedy="build both artifacts from one model, with one --precision, and load them on one device",
        )


_HERE = nullcontext()


def _no_grad() -> AbstractContextManager[Any]:
    return torch.no_grad() if torch.is_grad_enabled() else _HERE
