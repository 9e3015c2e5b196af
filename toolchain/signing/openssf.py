"""The one file that calls OpenSSF model-signing, pyOpenSSL and cryptography; it needs the extra ``sign``.

What model-signing signs is a list of files with their digests. Ours has one file, the manifest, under the name that
the library gives to a model of a single file: whoever takes the manifest out of the artifact can verify its signature
with the library's own command. The digest comes from the open artifact, so that no file has to be written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from model_signing import manifest, signing, verifying
from model_signing._hashing.hashing import Digest
from OpenSSL import crypto

from toolchain.errors import TrtcrossError, UntrustedError, UsageError
from toolchain.signing.bundle import Bundle
from toolchain.signing.policy import CertificateSigner, KeySigner, Signer

_MODEL_NAME, _SINGLE_FILE = "manifest.json", "."
_NOT_YET_VALID, _EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED

_KEY_REMEDY = "give an unencrypted private key in PEM, of the curve P-256, P-384 or P-521"
_CERTIFICATE_REMEDY = "give PEM files with --certificate: that of the key first, then those that issued it"


class _ManifestDigest:
    """Stands where the library would hash files; it is asked only after a signature has proven right."""

    def __init__(self, sha256: str) -> None:
        self._digest = bytes.fromhex(sha256)
        self.asked = False

    def hash(self, _path: object, *, files_to_hash: object = None) -> Any:
        self.asked = True
        form = manifest.SerializationType.from_args({"method": "files", "hash_type": "sha256", "allow_symlinks": False})
        item = form.new_item(_SINGLE_FILE, Digest("sha256", self._digest))
        return manifest.Manifest(_MODEL_NAME, [item], form)

    def add_ignored_paths(self, **_options: object) -> None:
        """There are no paths."""


def sign(sha256: str, key: Path, certificates: Sequence[Path], out: Path) -> None:
    """Writes the signature of the manifest with this digest.

    Raises:
        UsageError: the key or a certificate cannot be used.
    """
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=key)
    except Exception as error:  # the library's errors have no common class
        raise UsageError("the key cannot be used", where=str(key), remedy=_KEY_REMEDY) from error
    if certificates:
        signer = _certificate_signer(key, certificates)
    signer.set_hashing_config(_ManifestDigest(sha256)).sign(_MODEL_NAME, out)


def _certificate_signer(key: Path, certificates: Sequence[Path]) -> Any:
    own, *others = certificates
    try:
        certificate = x509.load_pem_x509_certificate(own.read_bytes())
        if not certificate.not_valid_before_utc <= datetime.now(timezone.utc) <= certificate.not_valid_after_utc:
            raise UsageError(
                f"the certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to "
                f"{certificate.not_valid_after_utc:%Y-%m-%d}, not now",
                where=str(own),
                remedy="have it renewed",
            )
        # The library wants a chain; the certificate itself adds nothing to it.
        return signing.Config().use_certificate_signer(
            private_key=key, signing_certificate=own, certificate_chain=others or [own]
        )
    except TrtcrossError:
        raise
    except Exception as error:
        raise UsageError(
            f"the certificates cannot be used with this key: {error}", where=str(own), remedy=_CERTIFICATE_REMEDY
        ) from error


def verifier(signer: Signer, bundle: Bundle) -> Any | None:
    """The library's verifier for a signer, or None if it is another that claims to have signed.

    Raises:
        UntrustedError: the signer's certificate is not valid today.
        UsageError: the policy's key or certificates cannot be read.
    """
    if isinstance(signer, KeySigner):
        return _key_verifier(signer, bundle)
    return _certificate_verifier(signer, bundle)


def is_of(prepared: Any, sha256: str, signature: Path) -> bool:
    """Whether a signature is of the manifest with this digest.

    Raises:
        UntrustedError: it was not made with the key that it names.
    """
    digest = _ManifestDigest(sha256)
    try:
        prepared.set_hashing_config(digest).verify(_MODEL_NAME, signature)
    except Exception as error:
        if digest.asked:
            return False
        raise UntrustedError(
            "the signature is not valid: it was not made with the key that it names, or it was changed",
            where=str(signature),
            remedy="get the artifact and its signature again, from whom you trust",
        ) from error
    return True


def claimed_by(bundle: Bundle) -> str:
    """Who a bundle says has signed; unchecked."""
    if bundle.key_hint:
        return f"a key of SHA-256 {bundle.key_hint[:16]}..."
    leaf = _leaf(bundle)
    names = " or ".join(_identities(leaf))
    if leaf is None or not names:
        return "somebody whose certificate cannot be read"
    return f"{names}, certified by {leaf.issuer.rfc4514_string()}"


def _key_verifier(signer: KeySigner, bundle: Bundle) -> Any | None:
    try:
        pem = serialization.load_pem_public_key(signer.key.read_bytes()).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        prepared = verifying.Config().use_elliptic_key_verifier(public_key=signer.key)
    except Exception as error:
        raise UsageError(
            "the signer's key cannot be used",
            where=str(signer.key),
            remedy="give a public key in PEM, of the curve P-256, P-384 or P-521; or an identity and its authority",
        ) from error
    return prepared if bundle.key_hint == hashlib.sha256(pem).hexdigest() else None


def _certificate_verifier(signer: CertificateSigner, bundle: Bundle) -> Any | None:
    try:
        authorities = x509.load_pem_x509_certificates(signer.ca.read_bytes())
        prepared = verifying.Config().use_certificate_verifier(certificate_chain=[signer.ca])
    except Exception as error:
        raise UsageError(
            "the authority's certificates cannot be read", where=str(signer.ca), remedy="give them as PEM"
        ) from error
    if signer.identity not in _identities(_leaf(bundle)):
        return None
    return prepared if _is_issued_now(signer, bundle, authorities) else None


def _is_issued_now(signer: CertificateSigner, bundle: Bundle, authorities: list[x509.Certificate]) -> bool:
    """Whether the chain holds today; the library asks whether it held when the certificate began."""
    store = crypto.X509Store()
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
    try:
        own, *others = (
            crypto.X509.from_cryptography(x509.load_der_x509_certificate(data)) for data in bundle.certificates
        )
        crypto.X509StoreContext(store, own, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        if error.errors[0] in (_NOT_YET_VALID, _EXPIRED):
            state = "has expired" if error.errors[0] == _EXPIRED else "is not valid yet"
            raise UntrustedError(
                f"the signature's certificate {state}, or one that issued it: {signer}",
                where=str(signer.ca),
                remedy="have the artifact signed again with a certificate that is valid today",
            ) from error
        return False
    except Exception:  # noqa: BLE001 - a certificate that cannot be read was issued by nobody
        return False
    return True


def _leaf(bundle: Bundle) -> x509.Certificate | None:
    try:
        return x509.load_der_x509_certificate(bundle.certificates[0])
    except (IndexError, ValueError):
        return None


def _identities(certificate: x509.Certificate | None) -> list[str]:
    if certificate is None:
        return []
    kinds = (x509.RFC822Name, x509.UniformResourceIdentifier, x509.DNSName)
    try:
        found = [certificate.subject.rfc4514_string()]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [*(name.value for name in names if isinstance(name, kinds)), *found]
    except x509.ExtensionNotFound:
        return found
    except ValueError:  # what cannot be read names nobody
        return []
