"""Signs and verifies with OpenSSF model-signing, pyOpenSSL and cryptography; needs the extra ``sign``.

No other module calls these libraries. model-signing signs a list of files with their digests. Our list has one file,
the manifest, under the library's name for a model of a single file; so the library's own command verifies the signature
of a manifest that was extracted from the artifact. The digest comes from the open artifact: no file has to be written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import manifest, signing, verifying
from model_signing._hashing.hashing import Digest
from OpenSSL import crypto

from toolchain.errors import UntrustedError, UsageError
from toolchain.signing.bundle import Bundle
from toolchain.signing.policy import CertificateSigner, KeySigner, Signer

_MODEL_NAME, _SINGLE_FILE = "manifest.json", "."
_NOT_YET_VALID, _EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED

# The libraries' errors have no common class. These are the ones that each kind of call raises about its input. Any
# other error, from the libraries or from this file, is a bug and is reported as one: no try block holds our own code.
_BAD_CERTIFICATE = (
    *(ValueError, UnsupportedAlgorithm, crypto.Error),
    *(x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)
# The library reads a signature's file without checking its form, and verifies with any key that it finds there.
_BAD_SIGNATURE = (
    *(OSError, LookupError, TypeError, AttributeError, RecursionError),
    *(InvalidSignature, crypto.X509StoreContextError, x509.ExtensionNotFound, *_BAD_CERTIFICATE),
)

_KEY_REMEDY = "give an unencrypted private key in PEM, of the curve P-256, P-384 or P-521"
_CERTIFICATE_REMEDY = "give PEM files with --certificate: that of the key first, then those that issued it"


class _ManifestDigest:
    """Takes the place of the library's hashing of files; the library calls it only after a signature proved valid."""

    def __init__(self, sha256: str) -> None:
        form = manifest.SerializationType.from_args({"method": "files", "hash_type": "sha256", "allow_symlinks": False})
        item = form.new_item(_SINGLE_FILE, Digest("sha256", bytes.fromhex(sha256)))
        self._manifest = manifest.Manifest(_MODEL_NAME, [item], form)
        self.asked = False

    def hash(self, _path: object, *, files_to_hash: object = None) -> Any:
        self.asked = True
        return self._manifest

    def add_ignored_paths(self, **_options: object) -> None:
        """Does nothing: no paths are hashed."""


def sign(sha256: str, key: Path, certificates: Sequence[Path], out: Path) -> None:
    """Writes the signature of the manifest with this digest.

    Raises:
        UsageError: the key or a certificate cannot be used.
    """
    _require_private_key(key)
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=key)
    except (OSError, ValueError) as error:
        raise _bad_key(str(error), key) from error
    if certificates:
        signer = _certificate_signer(key, certificates)
    signer.set_hashing_config(_ManifestDigest(sha256)).sign(_MODEL_NAME, out)


def _require_private_key(path: Path) -> None:
    """Refuses a key that the library cannot use: one that is encrypted, or of a different kind.

    Raises:
        UsageError: the message names the reason.
    """
    data = _read(path, "the key cannot be used", _KEY_REMEDY)
    try:
        key = serialization.load_pem_private_key(data, None)
    except TypeError as error:  # it needs a password
        raise _bad_key("it is encrypted", path) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _bad_key("it is not a private key in PEM", path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _bad_key("it is not of an elliptic curve", path)


def _bad_key(problem: str, path: Path) -> UsageError:
    return UsageError(f"the key cannot be used: {problem}", where=str(path), remedy=_KEY_REMEDY)


def _read(path: Path, problem: str, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{problem}: {error.strerror or error}", where=str(path), remedy=remedy) from error


def _certificate_signer(key: Path, certificates: Sequence[Path]) -> Any:
    own, *others = certificates
    data = _read(own, "the certificate cannot be read", _CERTIFICATE_REMEDY)
    try:
        certificate = x509.load_pem_x509_certificate(data)
    except _BAD_CERTIFICATE as error:
        raise _bad_certificates(error, own) from error
    if not certificate.not_valid_before_utc <= datetime.now(timezone.utc) <= certificate.not_valid_after_utc:
        raise UsageError(
            f"the certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d}, not now",
            where=str(own),
            remedy="have it renewed",
        )
    try:
        # The library requires a chain; the certificate itself adds nothing to it.
        return signing.Config().use_certificate_signer(
            private_key=key, signing_certificate=own, certificate_chain=others or [own]
        )
    except (OSError, *_BAD_CERTIFICATE) as error:
        raise _bad_certificates(error, own) from error


def _bad_certificates(error: Exception, own: Path) -> UsageError:
    return UsageError(
        f"the certificates cannot be used with this key: {error}", where=str(own), remedy=_CERTIFICATE_REMEDY
    )


def verifier(signer: Signer, bundle: Bundle) -> Any | None:
    """Returns the library's verifier for a signer, or None if the bundle claims a different signer.

    Raises:
        UntrustedError: the signer's certificate is not valid today.
        UsageError: the policy's key or certificates cannot be read.
    """
    if isinstance(signer, KeySigner):
        return _key_verifier(signer, bundle)
    return _certificate_verifier(signer, bundle)


def is_of(prepared: Any, sha256: str, signature: Path) -> bool:
    """Whether a signature covers the manifest with this digest.

    Args:
        prepared: what :func:`verifier` returned.
        sha256: the manifest's digest.
        signature: the signature's file.

    Raises:
        UntrustedError: the signature was not made with the key that it names.
    """
    digest = _ManifestDigest(sha256)
    prepared.set_hashing_config(digest)
    try:
        prepared.verify(_MODEL_NAME, signature)
    except _BAD_SIGNATURE as error:
        if digest.asked and isinstance(error, ValueError):
            return False
        raise UntrustedError(
            "the signature is not valid: it was not made with the key that it names, or it was changed",
            where=str(signature),
            remedy="get the artifact and its signature again, from whom you trust",
        ) from error
    return True


def claimed_by(bundle: Bundle) -> str:
    """Describes the signer that a bundle claims, unchecked."""
    if bundle.key_hint:
        return f"a key of SHA-256 {bundle.key_hint[:16]}..."
    leaf = _leaf(bundle)
    names = " or ".join(_identities(leaf))
    if leaf is None or not names:
        return "somebody whose certificate cannot be read"
    return f"{names}, certified by {leaf.issuer.rfc4514_string()}"


def _key_verifier(signer: KeySigner, bundle: Bundle) -> Any | None:
    remedy = "give a public key in PEM, of the curve P-256, P-384 or P-521; or an identity and its authority"
    problem = "the signer's key cannot be used"
    data = _read(signer.key, problem, remedy)
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{problem}: it is not a public key in PEM", where=str(signer.key), remedy=remedy) from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise UsageError(f"{problem}: it is not of an elliptic curve", where=str(signer.key), remedy=remedy)
    try:
        prepared = verifying.Config().use_elliptic_key_verifier(public_key=signer.key)
    except (OSError, ValueError) as error:
        raise UsageError(f"{problem}: {error}", where=str(signer.key), remedy=remedy) from error
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return prepared if bundle.key_hint == hashlib.sha256(pem).hexdigest() else None


def _certificate_verifier(signer: CertificateSigner, bundle: Bundle) -> Any | None:
    problem, remedy = "the authority's certificates cannot be read", "give them as PEM"
    data = _read(signer.ca, problem, remedy)
    try:
        authorities = x509.load_pem_x509_certificates(data)
        prepared = verifying.Config().use_certificate_verifier(certificate_chain=[signer.ca])
    except (OSError, *_BAD_CERTIFICATE) as error:
        raise UsageError(f"{problem}: {error}", where=str(signer.ca), remedy=remedy) from error
    if signer.identity not in _identities(_leaf(bundle)):
        return None
    return prepared if _is_issued_now(signer, bundle, authorities) else None


def _is_issued_now(signer: CertificateSigner, bundle: Bundle, authorities: list[x509.Certificate]) -> bool:
    """Whether the certificate chain is valid today; the library checks it for the start of the certificate's validity.

    Raises:
        UntrustedError: a certificate of the chain has expired, or is not valid yet.
    """
    store = crypto.X509Store()
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
    try:
        chain = [crypto.X509.from_cryptography(x509.load_der_x509_certificate(data)) for data in bundle.certificates]
        crypto.X509StoreContext(store, chain[0], chain[1:]).verify_certificate()
    except crypto.X509StoreContextError as error:
        if error.errors[0] in (_NOT_YET_VALID, _EXPIRED):
            state = "has expired" if error.errors[0] == _EXPIRED else "is not valid yet"
            raise UntrustedError(
                f"the signature's certificate {state}, or one that issued it: {signer}",
                where=str(signer.ca),
                remedy="have the artifact signed again with a certificate that is valid today",
            ) from error
        return False
    except _BAD_CERTIFICATE:  # a certificate that cannot be read counts as not issued
        return False
    return True


def _leaf(bundle: Bundle) -> x509.Certificate | None:
    if not bundle.certificates:
        return None
    try:
        return x509.load_der_x509_certificate(bundle.certificates[0])
    except _BAD_CERTIFICATE:
        return None


def _identities(certificate: x509.Certificate | None) -> list[str]:
    if certificate is None:
        return []
    kinds = (x509.RFC822Name, x509.UniformResourceIdentifier, x509.DNSName)
    try:
        subject = certificate.subject.rfc4514_string()
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [subject]
    except _BAD_CERTIFICATE:  # a name that cannot be read names nobody
        return []
    return [*(name.value for name in names if isinstance(name, kinds)), subject]
