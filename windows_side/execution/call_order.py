"""Calls one after another, whatever stream each comes on."""

from __future__ import annotations

import torch


class CallOrder:
    """Lets each call of a model wait for the one before on the GPU: all use the engines' one scratch memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None

    def follow_the_last_call(self) -> None:
        if self._device.type != "cuda":
            return
        # Inductor's generated code asks in the same way; torch.cuda.current_stream takes microseconds.
        handle = torch._C._cuda_getCurrentRawStream(self._device.index)
        if self._stream is not None and handle == self._stream.cuda_stream:
            return
        if torch.cuda.is_current_stream_capturing():
            return  # the caller captures a graph, and says when that runs
        stream = torch.cuda.current_stream(self._device)
        if self._stream is not None:
            stream.wait_stream(self._stream)
        self._stream = stream

    def wait_for_the_last_call(self) -> None:
        """Until the GPU is done: TensorRT frees an engine's memory without looking whether it is in use."""
        if self._stream is not None:
            self._stream.synchronize()
