"""Opens a session by the options of a verb."""

from __future__ import annotations

from toolchain.artifact import Artifact
from windows_side.options import LoadOptions
from windows_side.session.session import Session


def open_session(artifact: Artifact, options: LoadOptions, *, stream: int | None = None) -> Session:
    """Opens a session for a verb of the command line.

    Args:
        stream: the CUDA stream's number, as :class:`.Session` takes it.

    Raises:
        Those of :class:`.Session`.
    """
    return Session(
        artifact,
        options.device,
        stream=stream,
        cuda_graphs=options.cuda_graphs,
        allow_unlisted_gpu=options.allow_unlisted_gpu,
        policy=options.policy,
        runtime_cache=options.runtime_cache,
        trust=options.trust,
        kernels=options.kernels,
    )
