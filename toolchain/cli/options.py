"""Options that several verbs share, and their types: sizes, trust in foreign files, required signers."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from toolchain.cli.fields import field_options
from toolchain.cli.offers import files
from toolchain.cli.output import Output
from toolchain.errors import UsageError
from toolchain.options import TrustOptions
from toolchain.signing.policy import CertificateSigner, KeySigner, Policy, read_policy
from toolchain.sizes import parse_size

trust_option = field_options(TrustOptions)

_PATH = click.Path(path_type=Path)
_KEY_SIZE = 2**16


class SizeType(click.ParamType):  # type: ignore[type-arg] # generic in newer versions of click
    """A size in bytes, as :func:`toolchain.sizes.parse_size` reads it."""

    name = "size"

    def __init__(self, minimum: int = 0) -> None:
        self._minimum = minimum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_size(str(value), where=param.opts[0] if param else "SIZE", minimum=self._minimum)
        except UsageError as error:
            self.fail(f"{error.problem}; {error.remedy}", param, ctx)


SIZE = SizeType()


def signer_options(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb ``--policy``, ``--signer`` and ``--signer-ca``; its function gets one argument, ``policy``.

    The decorator must stand below ``@verb``, which then reports errors in these options.
    """

    @click.option("--policy", type=_PATH, help="Who may have signed it: a TOML file; see docs/trust/signing.md.")
    @click.option(
        "--signer",
        shell_complete=files,
        help="Who must have signed it: a public key's file, or an identity with --signer-ca.",
    )
    @click.option("--signer-ca", type=_PATH, help="The authority's certificates (PEM) that vouch for the identity.")
    @wraps(function)
    def command(
        output: Output, *, policy: Path | None, signer: str | None, signer_ca: Path | None, **options: Any
    ) -> None:
        function(output, policy=chosen_policy(policy, signer, signer_ca), **options)

    return command


def chosen_policy(policy: Path | None, signer: str | None, ca: Path | None) -> Policy | None:
    """Returns the policy that the options describe, or None if they require no signature.

    Raises:
        UsageError: the options contradict each other, or a file that they name cannot be used.
    """
    if policy and signer:
        raise UsageError("--policy and --signer both say who may have signed", remedy="give one of them")
    if ca and not signer:
        raise UsageError(
            "--signer-ca vouches for an identity, and none is given",
            where="--signer-ca",
            remedy="add --signer IDENTITY, as the certificate has it",
        )
    if policy:
        return read_policy(policy)
    if signer is None:
        return None
    return Policy((CertificateSigner(signer, ca) if ca else KeySigner(_public_key(signer)),))


def _public_key(signer: str) -> Path:
    """Returns the key's file that ``--signer`` names, checked before the artifact is opened."""
    path, where = Path(signer), f"--signer {signer}"
    if not path.is_file():
        if "@" in signer or "://" in signer or "=" in signer:
            raise UsageError(
                "an identity needs the authority that vouches for it", where=where, remedy="add --signer-ca CA.pem"
            )
        raise UsageError("there is no such key", where=where, remedy="give the file of a public key in PEM")
    head = path.read_bytes()[:_KEY_SIZE]
    if b"PRIVATE KEY" in head:
        raise UsageError(
            "this is a private key, and checking a signature takes the public one",
            where=where,
            remedy=f"openssl pkey -in {signer} -pubout -out {path.stem}.pub",
        )
    if b"BEGIN PUBLIC KEY" not in head:
        raise UsageError("this is not a public key in PEM", where=where, remedy="give the file of a public key in PEM")
    return path


def report_signer(output: Output, signer: object) -> None:
    """Reports who signed, in the document and as a line."""
    output.put(signer=str(signer))
    output.say(f"signed by {signer}")
