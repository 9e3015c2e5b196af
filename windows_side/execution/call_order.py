"""Orders the calls of a model on the GPU, whichever stream each one is made on."""

from __future__ import annotations

import torch


class CallOrder:
    """Makes each call of a model wait on the GPU for the one before: all calls share the engines' scratch memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None

    def follow_the_last_call(self) -> None:
        """Makes the caller's current stream wait for the last call, without blocking the CPU."""
        if self._device.type != "cuda":
            return
        # Inductor's generated code uses this function too; torch.cuda.current_stream takes microseconds.
        handle = torch._C._cuda_getCurrentRawStream(self._device.index)
        if self._stream is not None and handle == self._stream.cuda_stream:
            return
        if torch.cuda.is_current_stream_capturing():
            return  # the caller captures a graph, and decides when that runs
        stream = torch.cuda.current_stream(self._device)
        if self._stream is not None:
            stream.wait_stream(self._stream)
        self._stream = stream

    def wait_for_the_last_call(self) -> None:
        """Blocks until the last call has finished: TensorRT frees an engine's memory even while it is in use."""
        if self._stream is not None:
            self._stream.synchronize()
