"""A plan goes from TensorRT to a file as it is made, so that it is whole nowhere but there."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_plan(builder: Any, network: Any, config: Any, path: Path) -> bool:
    """Builds a network's engine into a file: the bytes that ``build_serialized_network`` gives.

    Returns:
        False where TensorRT builds none.

    Raises:
        OSError: the file cannot be written to.
    """
    import tensorrt

    class Writer(tensorrt.IStreamWriter):
        def __init__(self) -> None:
            tensorrt.IStreamWriter.__init__(self)
            self.error: OSError | None = None

        def write(self, data: bytes) -> int:
            # TensorRT says that it succeeded whatever this returns or raises.
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
