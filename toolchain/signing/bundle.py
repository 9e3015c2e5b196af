"""Reads a signature's file, a Sigstore bundle, strictly, as far as it states who claims to have signed."""

from __future__ import annotations

import base64
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.errors import MalformedArtifactError, UntrustedError
from toolchain.io.strict_json import load_json
from toolchain.limits import SIGNATURE

SUFFIX = ".sig"


@dataclass(frozen=True)
class Bundle:
    """A claim to have signed, which is not checked yet.

    Attributes:
        data: the file's bytes.
        key_hint: the SHA-256 of the public key, for a signature by key.
        certificates: certificates in DER with the signer's own first, for a signature by certificate.
    """

    data: bytes
    key_hint: str | None
    certificates: tuple[bytes, ...]


def signature_path(artifact: str | os.PathLike[str]) -> Path:
    """Returns the path of an artifact's signature: its own path and ``.sig``."""
    return Path(f"{os.fspath(artifact)}{SUFFIX}")


def read_bundle(path: Path) -> Bundle:
    """Reads a signature's file.

    Raises:
        UntrustedError: there is no signature, or it is no Sigstore bundle of a key or a certificate.
    """
    data = signature_bytes(path)
    try:
        document = load_json(data, where=str(path), limit=SIGNATURE)
        return _bundle(data, document["verificationMaterial"])
    except (MalformedArtifactError, ValueError, KeyError, TypeError) as error:
        raise refused(
            "the signature cannot be read: it is not a Sigstore bundle of a key or a certificate", path
        ) from error


def signature_bytes(path: Path) -> bytes:
    """Reads a signature's file, at most one byte more than a signature may have.

    Raises:
        UntrustedError: there is no signature, or it cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block
            raise refused("the signature cannot be read: it is not a regular file", path)
        with path.open("rb") as file:
            return file.read(SIGNATURE.size + 1)
    except FileNotFoundError as error:
        raise refused("the artifact is not signed: there is no signature beside it", path) from error
    except OSError as error:
        raise refused(f"the signature cannot be read: {error.strerror}", path) from error


def refused(problem: str, where: os.PathLike[str] | str) -> UntrustedError:
    """Returns the error for a signature that is refused."""
    return UntrustedError(
        problem, where=os.fspath(where), remedy="get the artifact and its signature again, from whom you trust"
    )


def _bundle(data: bytes, material: dict[str, Any]) -> Bundle:
    # The library accepts further spellings and older forms, and checks less in them.
    kinds = set(material) - {"tlogEntries", "timestampVerificationData"}
    if kinds == {"publicKey"}:
        hint = material["publicKey"]["hint"]
        if isinstance(hint, str) and hint:
            return Bundle(data, hint, ())
    elif kinds == {"x509CertificateChain"}:
        chain = material["x509CertificateChain"]["certificates"]
        certificates = tuple(base64.b64decode(item["rawBytes"], validate=True) for item in chain)
        if certificates:
            return Bundle(data, None, certificates)
    raise ValueError("neither a key nor a certificate")
