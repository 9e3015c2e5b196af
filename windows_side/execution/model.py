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
    """Runs an artifact's program: same call signature and output structure as the original model.

    Threads and streams may share it: calls are queued one after another, but for those that have execution contexts of
    their own, and each call's outputs are its own.

    Attributes:
        manifest: the artifact's.
        device: where everything runs.
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
        """Joins a program, its engines and how they are called.

        Args:
            beside: the same program with execution contexts of its own, each for a call beside others.
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
        self._free.put(None)  # this one, which is not to refer to itself
        for other in beside:
            self._free.put(LoadedModel(other, manifest, device, cuda_graphs=cuda_graphs, cache=cache))
        self._is_alone = not beside
        self._is_only_gpu = device.type != "cuda" or torch.cuda.device_count() == 1
        self._order = CallOrder(device)
        self.eval()
        # Set last: attributes go in the order in which they came.
        self._owner = _LastOwner(self._order, device, program, self._flat, self._captured)

    @cached_property
    def program(self) -> ExportedProgram:
        """The exported program, its engines in place; saved again, it is another artifact of torch's.

        It is read when it is first asked for: that imports torch.export's reader, which takes seconds.
        """
        return self._program.exported()

    @property
    def kernels_are_cached(self) -> bool:
        """Whether the first call finds its kernels compiled; otherwise it takes seconds."""
        return self._cache is not None and self._cache.warm

    def keep_kernels(self) -> None:
        """Keeps what has been compiled so far, beside the calls too; otherwise that is done when Python exits."""
        if self._cache is not None:
            self._cache.save()

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """What calls change and later calls read, such as a key-value cache: the model's own tensors, by name."""
        return {name: self._flat.get_buffer(name) for name in self._program.state}

    def share_state(self, other: LoadedModel) -> None:
        """Lets this model read and write another one's state in the place of its own, which is dropped.

        So a prefill and a decode artifact of one language model have one key-value cache. Calls of both are then queued
        one after another. Graphs that were captured before are captured again.

        Args:
            other: a model on the same device that has all of this one's state, by name, shape and dtype.

        Raises:
            UsageError: it has not.
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
            self._owner = _LastOwner(self._order, self.device, self._program, self._flat, self._captured)
        self._lock = other._lock

    def _put_state(self, name: str, tensor: torch.Tensor) -> None:
        path, _, leaf = name.rpartition(".")
        setattr(self._flat.get_submodule(path), leaf, tensor)
        if "program" in self.__dict__:  # it has been made; otherwise it will be of what is there then
            for kept in (self.program.state_dict, self.program.constants):
                if name in kept:
                    kept[name] = tensor

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model.

        Raises:
            UsageError: an input is missing, on another device, of another dtype, or outside its range, or sizes violate
                a guard.
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
        """Makes the model's GPU the current one, where it is not: engines run on the current GPU."""
        if self._is_only_gpu or self.device.index == torch.cuda.current_device():
            return _HERE
        return torch.cuda.device(self.device)


class _LastOwner:
    """The last to hold what a model has on the GPU: lets go of it when the last call is done.

    It is no ``__del__`` of the model's own: that runs while a weak reference may still hand the model out.
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
    def said(tensor: torch.Tensor) -> str:
        return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} on {tensor.device}"

    if theirs is None or (ours.shape, ours.dtype, ours.device) != (theirs.shape, theirs.dtype, theirs.device):
        there = said(theirs) if theirs is not None else "missing"
        raise UsageError(
            f"the state {name} is {said(ours)}, and {there} in the other model",
            where="share_state()",
            remedy="build both artifacts from one model, with one --precision, and load them on one device",
        )


_HERE = nullcontext()


def _no_grad() -> AbstractContextManager[Any]:
    return torch.no_grad() if torch.is_grad_enabled() else _HERE
