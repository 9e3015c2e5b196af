"""Whether an artifact may be loaded, decided before torch is imported: its signature, and its needs of this machine."""

from __future__ import annotations

from typing import Protocol

from toolchain.artifact import Artifact
from toolchain.host.requirements import Requirement
from toolchain.signing.policy import Policy
from windows_side.preflight.requirements import Runtime, require


class Admission(Protocol):
    """What of a loading's settings decides whether it may begin."""

    @property
    def allow_unlisted_gpu(self) -> bool: ...
    @property
    def policy(self) -> Policy | None: ...


def admit(artifact: Artifact, loading: Admission, runtime: Runtime = Runtime.TORCH) -> list[Requirement]:
    """Refuses an artifact that nobody trusted has signed, or that cannot run here.

    Args:
        runtime: what is to run it.

    Returns:
        The requirements that are not met and that the options let pass.

    Raises:
        UntrustedError: the policy names nobody who signed it.
        IncompatibleError, MissingComponentError: a requirement is not met.
    """
    if loading.policy is not None:
        from toolchain.signing.artifact import require_signature

        require_signature(artifact, loading.policy)
    return require(artifact, allow_unlisted_gpu=loading.allow_unlisted_gpu, runtime=runtime)
