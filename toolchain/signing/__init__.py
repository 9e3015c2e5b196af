"""Signatures over artifacts: making them, verifying them, and the policy that asks for them.

::

    from toolchain import open_artifact
    from toolchain.signing import KeySigner, Policy, require_signature, sign_artifact

    with open_artifact("resnet50.pt2") as artifact:
        sign_artifact(artifact, Path("private.pem"))
        print(require_signature(artifact, Policy((KeySigner(Path("public.pem")),))))
"""

from __future__ import annotations

from toolchain.signing.artifact import require_signature, sign_artifact
from toolchain.signing.policy import CertificateSigner, KeySigner, Policy, read_policy

__all__ = ["CertificateSigner", "KeySigner", "Policy", "read_policy", "require_signature", "sign_artifact"]
