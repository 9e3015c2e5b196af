"""Policies: the keys, and the identities of a certificate authority, whose signatures are accepted.

A policy is made by a caller, or read from a TOML file. The file names only public parts, by paths relative to itself::

    version = 1

    [[signer]]
    key = "build-server.pub"          # a public key, PEM

    [[signer]]
    identity = "releases@example.com" # as the certificate has it, exactly
    ca = "example-ca.pem"             # who issued it
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from toolchain.errors import UsageError
from toolchain.io.toml import parse_toml
from toolchain.manifest.checks import Bounds, FieldError
from toolchain.manifest.records import Record

_SIZE_LIMIT = 2**20


@dataclass(frozen=True)
class KeySigner:
    """The holder of a private key, by the file of its public key (PEM; P-256, P-384 or P-521)."""

    key: Path

    def __str__(self) -> str:
        return f"the key {self.key.name}"


@dataclass(frozen=True)
class CertificateSigner:
    """The holder of a certificate that names an identity and that one of the given authorities issued.

    Attributes:
        identity: an e-mail address, URI or host name from the certificate's alternative names, or its whole subject
            (RFC 4514, such as ``CN=Releases,O=Example``).
        ca: the file of the authority's certificates (PEM), the only ones that are trusted as issuers.
    """

    identity: str
    ca: Path

    def __str__(self) -> str:
        return f"{self.identity} (of {self.ca.name})"


Signer = KeySigner | CertificateSigner


@dataclass(frozen=True)
class Policy:
    """The accepted signers; a signature of any one of them is enough."""

    signers: tuple[Signer, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.signers)) or "nobody"


class _Key(Record):
    key: Annotated[str, Bounds(min_length=1)]


class _Certificate(Record):
    identity: Annotated[str, Bounds(min_length=1)]
    ca: Annotated[str, Bounds(min_length=1)]


class _Document(Record):
    version: Literal[1]
    signer: Annotated[list[_Key | _Certificate], Bounds(min_length=1)]


def read_policy(policy: str | os.PathLike[str] | Policy) -> Policy:
    """Reads a policy from its file; a :class:`Policy` is returned as it is.

    Raises:
        UsageError: the file cannot be read, or is not a policy.
        MissingComponentError: on Python 3.10, tomli is missing.
    """
    if isinstance(policy, Policy):
        return policy
    path = Path(policy)
    try:
        document = _Document.model_validate(parse_toml(_text(path)))
    except FieldError as error:
        raise _no_policy(path, str(error)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _no_policy(path, getattr(error, "strerror", None) or str(error)) from error
    return Policy(tuple(_signer(entry, path.parent) for entry in document.signer))


def _signer(entry: _Key | _Certificate, folder: Path) -> Signer:
    if isinstance(entry, _Key):
        return KeySigner(folder / entry.key)
    return CertificateSigner(entry.identity, folder / entry.ca)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(_SIZE_LIMIT + 1)
    if len(data) > _SIZE_LIMIT:
        raise ValueError(f"it is longer than {_SIZE_LIMIT} bytes")
    return data.decode("utf-8")


def _no_policy(path: Path, problem: str) -> UsageError:
    return UsageError(
        f"the policy cannot be read: {problem}",
        where=str(path),
        remedy='write it as docs/trust/signing.md shows: version = 1, and a [[signer]] with "key", or "identity", "ca"',
    )
