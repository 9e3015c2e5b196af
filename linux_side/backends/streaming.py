"""Streams a plan from TensorRT's builder into a file, so that it is never whole in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_plan(builder: Any, network: Any, config: Any, path: Path) -> bool:
    """Builds a network's engine into a file, with the bytes that ``build_serialized_network`` would return.

    Args:
        builder: an ``IBuilder``.
        network: an ``INetworkDefinition``.
        config: an ``IBuilderConfig``.
        path: the file to write.

    Returns:
        Whether TensorRT built an engine.

    Raises:
        OSError: the file cannot be written.
    """
    import tensorrt

    class Writer(tensorrt.IStreamWriter):
        def __init__(self) -> None:
            tensorrt.IStreamWriter.__init__(self)
            self.error: OSError | None = None

        def write(self, data: bytes) -> int:
            # TensorRT reports success whatever this method returns or raises, so the error is kept for later.
            try:
                return file.write(data) if self.error is None else 0
            except OSError as error:
                self.error = error
                return 0

    with path.open("wb") as file:
        writer = Writer()
        built = builder.build_serialized_network_to_stream(network, config, writer)
    if writer.error is not None:
        raise writer.error
    return bool(built)
