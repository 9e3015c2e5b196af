"""Decides whether an artifact may be loaded, by its signature and by this machine, before torch is imported."""

from __future__ import annotations

from typing import Protocol

from toolchain.artifact import Artifact
from toolchain.host.requirements import Requirement
from toolchain.signing.policy import Policy
from windows_side.preflight.requirements import Runtime, require


class Admission(Protocol):
    """The settings of ``load`` that decide whether it may begin."""

    @property
    def allow_unlisted_gpu(self) -> bool: ...
    @property
    def policy(self) -> Policy | None: ...


def admit(artifact: Artifact, loading: Admission, runtime: Runtime = Runtime.TORCH) -> list[Requirement]:
    """Refuses an artifact that no trusted signer has signed, or that cannot run here.

    Args:
        loading: with a policy, the signature is checked first.
        runtime: the runtime that will run the artifact.

    Returns:
        The requirements that are unknown, were waived, or are only a risk; they are for warnings.

    Raises:
        UntrustedError: nobody whom the policy names has signed the artifact.
        IncompatibleError: a requirement is not met.
    """
    if loading.policy is not None:
        from toolchain.signing.artifact import require_signature

        require_signature(artifact, loading.policy)
    return require(artifact, allow_unlisted_gpu=loading.allow_unlisted_gpu, runtime=runtime)
