"""``Session``: an artifact on a GPU, called as the original model was, without PyTorch.

Imports little: what takes time to import is imported while the driver is asked for its GPUs, and CUDA starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from toolchain.host.gpu_probe import probe_ahead
from windows_side.session.ahead import device_index, start_ahead

if TYPE_CHECKING:
    from toolchain.artifact import Artifact
    from toolchain.manifest.models import Manifest
    from toolchain.signing.policy import Policy


class Session:
    """Runs an artifact's engines with TensorRT-RTX, CUDA's bindings and numpy; torch is not imported.

    ::

        session = Session("resnet50.pt2", device=0)
        y = session(x)  # as the original model: arguments, keywords, structure
        outputs = session.run({"x": x})  # by the names of inputs and outputs

    Inputs are numpy's arrays, torch's tensors, or anything with DLPack or ``__cuda_array_interface__``, on the host or
    on the session's GPU. Outputs are of the kind of the first input: numpy's arrays, torch's tensors where that is, or
    :class:`.device_array.DeviceArray` on the GPU (cupy's arrays for cupy's). What is numpy's or torch's and not in C
    order is copied; other arrays must be in C order.

    Threads may share a session: each call takes one of its execution contexts, and waits where all are taken.

    Attributes:
        manifest: the artifact's.
        device: where everything runs.
    """

    manifest: Manifest
    device: str

    def __init__(
        self,
        artifact: str | os.PathLike[str] | bytes | IO[bytes] | Artifact,
        device: int | str = 0,
        *,
        stream: Any = None,
        contexts: int = 1,
        cuda_graphs: bool = False,
        allow_unlisted_gpu: bool = False,
        policy: str | os.PathLike[str] | Policy | None = None,
        runtime_cache: bool | str | os.PathLike[str] = True,
        trust: str | None = None,
    ) -> None:
        """Loads an artifact's engines on a GPU.

        Args:
            artifact: its path, its bytes, a file to read it from, or an open one.
            device: the GPU, by its index or as torch names it.
            stream: the CUDA stream on which to run, as a number or an object of torch's, cupy's or CUDA's own; calls
                then return when their work is enqueued, and the caller orders other work around it. By default the
                session has a stream of its own, and torch's tensors on the GPU are worked on in torch's current stream.
            contexts: how many calls may run at once; the weights are on the GPU once.
            cuda_graphs: capture the program in a CUDA graph for each set of input shapes, and replay it.
            allow_unlisted_gpu, policy, runtime_cache, trust: as in :func:`windows_side.load`, which shares the cache.

        Raises:
            IncompatibleError: it cannot run on this machine, or needs PyTorch, and why.
            MalformedArtifactError: it is damaged.
            MissingComponentError: TensorRT-RTX or CUDA's bindings are missing.
            UntrustedError: it holds more than data, or nobody whom the policy names has signed it.
            UsageError: there is no such file or GPU, or the policy cannot be read.
        """
        started = start_ahead(device_index(device))
        probe_ahead()
        from windows_side.session.running import Running
        from windows_side.session.settings import Request

        self._running = Running(
            Request(
                artifact=artifact,
                device=device,
                stream=stream,
                contexts=contexts,
                cuda_graphs=cuda_graphs,
                allow_unlisted_gpu=allow_unlisted_gpu,
                policy=policy,
                runtime_cache=runtime_cache,
                trust=trust,
            ),
            started,
        )
        self.manifest, self.device = self._running.manifest, self._running.device

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model: the original's arguments in, its structure of results out.

        Raises:
            UsageError: an input is missing, on another GPU, of another dtype, or outside its range, or sizes violate a
                guard; or the session is closed, or is another process's.
            IncompatibleError: memory is short, or the GPU failed.
        """
        return self._running.call(args, kwargs)

    def run(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Runs the model on inputs by name, which ``trtcross inspect`` lists; gives outputs by name.

        Raises:
            UsageError: as a call does; or a name is missing, or is none of the model's.
            IncompatibleError: as a call does; or names do not tell inputs or outputs apart.
        """
        return self._running.run(feed)

    def run_leaves(self, leaves: Sequence[Any]) -> list[Any]:
        """Runs the model on the leaves of a call in the order of ``manifest.inputs``, those with a fixed value too.

        Returns:
            The leaves of the result, in the order of ``manifest.outputs``.

        Raises:
            UsageError, IncompatibleError: as a call does.
        """
        return self._running.run_leaves(leaves)

    @property
    def kernels_are_cached(self) -> bool:
        """Whether the first call finds its kernels compiled; otherwise it takes seconds."""
        return self._running.kernels_are_cached

    def close(self) -> None:
        """Waits for calls that run, and frees engines and memory. Arrays that calls returned stay."""
        self._running.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = " (closed)" if self._running.closed else ""
        return f"<Session of {self.manifest.model.name} on {self.device}{state}>"
