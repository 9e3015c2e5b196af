"""``Session``: an artifact on a GPU, called as the original model was, without PyTorch.

This module imports little: slow imports run while the driver is asked for its GPUs, and CUDA starts.
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
    from windows_side.kernel_choice import KernelChoice


class Session:
    """Runs an artifact's engines with TensorRT-RTX, CUDA's bindings and numpy; torch is not imported.

    ::

        session = Session("resnet50.pt2", device=0)
        y = session(x)  # as the original model: arguments, keywords, structure
        outputs = session.run({"x": x})  # by the names of inputs and outputs

    Inputs are numpy arrays, torch tensors, or any arrays with DLPack or ``__cuda_array_interface__``, on the host or on
    the session's GPU. Outputs are of the kind of the first input: numpy arrays, torch tensors on the same device, or
    :class:`.device_array.DeviceArray` on the GPU (cupy arrays for cupy's). numpy and torch arrays that are not in C
    order are copied; other arrays must be in C order.

    Threads may share a session: each call takes one of its execution contexts, and waits while all are taken.

    Attributes:
        manifest: the artifact's manifest.
        device: the GPU, as ``cuda:0``.
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
        kernels: KernelChoice = "lazy",
    ) -> None:
        """Loads an artifact's engines on a GPU.

        Args:
            artifact: an artifact's path, its bytes, a file to read it from, or an open artifact.
            device: the GPU, by its index or as torch names it.
            stream: the CUDA stream on which to run, as a number or as an object of torch, cupy or CUDA's bindings.
                Calls then return when their work is enqueued, and the caller orders other work around it. By default
                the session has a stream of its own, and calls with torch tensors on the GPU run on torch's current
                stream.
            contexts: how many calls may run at once; the weights are on the GPU once.
            cuda_graphs: capture the program in a CUDA graph for each set of input shapes, and replay it.
            allow_unlisted_gpu, policy, runtime_cache, trust, kernels: as in :func:`windows_side.load`, which shares the
                cache.

        Raises:
            IncompatibleError: the artifact cannot run on this machine, or needs PyTorch; the error states why.
            MalformedArtifactError: the artifact is damaged.
            MissingComponentError: TensorRT-RTX or CUDA's bindings are missing.
            UntrustedError: the file holds more than data, or nobody whom the policy names has signed it.
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
                kernels=kernels,
            ),
            started,
        )
        self.manifest, self.device = self._running.manifest, self._running.device

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model on the original's arguments, and returns its result in the original's structure.

        Raises:
            UsageError: an input is missing, has the wrong GPU or dtype, or is outside its range, or sizes violate a
                guard; or the session is closed, or was made in a different process.
            IncompatibleError: memory is short, or the GPU failed.
        """
        return self._running.call(args, kwargs)

    def run(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Runs the model on inputs by name, which ``trtcross inspect`` lists, and returns its outputs by name.

        Raises:
            UsageError: as for a call; or a name is missing, or is not an input's.
            IncompatibleError: as for a call; or two inputs or two outputs have one name.
        """
        return self._running.run(feed)

    def run_leaves(self, leaves: Sequence[Any]) -> list[Any]:
        """Runs the model on the leaves of a call in the order of ``manifest.inputs``, fixed values included.

        Returns:
            The leaves of the result, in the order of ``manifest.outputs``.

        Raises:
            UsageError, IncompatibleError: as for a call.
        """
        return self._running.run_leaves(leaves)

    @property
    def kernels_are_cached(self) -> bool:
        """Whether the kernel cache had the kernels; otherwise the first call compiles them, which takes seconds."""
        return self._running.kernels_are_cached

    def close(self) -> None:
        """Waits for running calls, and frees engines and memory. Arrays that calls returned stay valid."""
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
