"""Signs artifacts, verifies signatures, and reads the policy that requires them.

::

    from toolchain import open_artifact
    from toolchain.signing import KeySigner, Policy, require_signature, sign_artifact

    with open_artifact("resnet50.pt2") as artifact:
        sign_artifact(artifact, Path("private.pem"))
        print(require_signature(artifact, Policy((KeySigner(Path("public.pem")),))))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.lazy import lazy_names

if TYPE_CHECKING:
    from toolchain.signing.artifact import require_signature, sign_artifact
    from toolchain.signing.policy import CertificateSigner, KeySigner, Policy, read_policy

__all__ = ["CertificateSigner", "KeySigner", "Policy", "read_policy", "require_signature", "sign_artifact"]

# Loading an artifact needs only one of these modules, and each takes time to import.
__getattr__ = lazy_names(
    __name__,
    {
        "CertificateSigner": "toolchain.signing.policy",
        "KeySigner": "toolchain.signing.policy",
        "Policy": "toolchain.signing.policy",
        "read_policy": "toolchain.signing.policy",
        "require_signature": "toolchain.signing.artifact",
        "sign_artifact": "toolchain.signing.artifact",
    },
)
