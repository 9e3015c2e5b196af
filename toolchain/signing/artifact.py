"""Signs an artifact, and refuses one that none of the required signers has signed.

The signature covers the manifest's bytes, and is in a file beside the artifact. A manifest belongs to exactly one file:
it lists every other entry in the order of the file, with size and digest, and the zip's headers follow from that. So
checking the signature, and then the digests as :meth:`Artifact.check_integrity` and ``load`` do, checks every byte of
the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolchain.artifact import Artifact
from toolchain.errors import MissingComponentError, UntrustedError
from toolchain.host.installed import install_line
from toolchain.io.atomic import replacing, writing
from toolchain.signing.bundle import read_bundle, refused, signature_bytes, signature_path
from toolchain.signing.policy import Policy, Signer


def sign_artifact(artifact: Artifact, key: Path, certificates: Sequence[Path] = ()) -> Path:
    """Checks every byte of an artifact, signs it, and writes the signature beside it.

    Args:
        artifact: the artifact.
        key: the file of a private key (PEM); the key is read and never stored or sent.
        certificates: the files of the key's own certificate and then of those that issued it; none to sign by key
            alone.

    Returns:
        The signature's path.

    Raises:
        MalformedArtifactError: the artifact is damaged.
        UntrustedError: it is a foreign artifact, which has no manifest to sign.
        UsageError: the key or a certificate cannot be used, or the folder cannot be written to.
        MissingComponentError: model-signing is not installed.
    """
    _require_manifest(artifact)
    library = _library()
    artifact.check_integrity()
    path = signature_path(artifact.path)
    remedy = "check the folder's permissions and its disk; a signature that was there is still there"
    with writing("the signature", path, remedy=remedy), replacing(path) as part:
        library.sign(artifact.manifest_sha256, Path(key), certificates, part)
    return path


def require_signature(artifact: Artifact, policy: Policy) -> Signer:
    """Refuses an artifact that none of the policy's signers has signed.

    The signature covers the manifest as it was read when the artifact was opened. The rest of the file is covered when
    its digests are checked too.

    Returns:
        The signer.

    Raises:
        UntrustedError: the artifact is foreign or not signed; or the signature is not valid, belongs to a different
            artifact, or was made by somebody else; or its certificate is not valid today.
        UsageError: a key or certificate of the policy cannot be read.
        MissingComponentError: model-signing is not installed.
    """
    _require_manifest(artifact)
    return require_signature_of(artifact.manifest_sha256, artifact.path, policy)


def require_signature_of(manifest_sha256: str, signed: Path, policy: Policy) -> Signer:
    """Does what :func:`require_signature` does, for a manifest that a converted file or folder carries.

    Args:
        manifest_sha256: the digest of the manifest's bytes.
        signed: the file beside which the signature is.
        policy: who may have signed.

    Returns:
        The signer.
    """
    path = signature_path(signed)
    bundle = read_bundle(path)
    library = _library()
    for signer in policy.signers:
        verifier = library.verifier(signer, bundle)
        if verifier is None:
            continue
        if not library.is_of(verifier, manifest_sha256, path):
            raise refused("the signature is of another artifact, or this one was changed since it was signed", signed)
        if signature_bytes(path) != bundle.data:  # the library has read the file again
            raise refused("the signature changed while it was read", path)
        return signer
    claim = library.claimed_by(bundle)
    raise refused(f"nobody whom the policy trusts has signed it: that is {policy}; the signature says {claim}", path)


def _require_manifest(artifact: Artifact) -> None:
    if artifact.foreign:
        raise UntrustedError(
            "it was saved by Torch-TensorRT itself, and has no manifest, which a signature covers",
            where=str(artifact.path),
            remedy=f"give it one: trtcross convert {artifact.path.name} -o OUT",
        )


def _library() -> Any:
    try:
        from toolchain.signing import openssf
    except ImportError as error:
        raise MissingComponentError(
            f"signatures need the module {error.name or 'model_signing'}, which is not installed here",
            remedy=install_line("sign"),
        ) from error
    return openssf
