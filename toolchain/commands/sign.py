"""``trtcross sign``: writes a signature beside the artifact."""

from __future__ import annotations

from pathlib import Path

import click

from toolchain.artifact import open_artifact
from toolchain.cli.offers import files
from toolchain.cli.output import Output, verb
from toolchain.progress import working
from toolchain.signing.artifact import sign_artifact

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("artifact", shell_complete=files)
@click.option("--key", required=True, type=_PATH, help="The private key: PEM, of the curve P-256, P-384 or P-521.")
@click.option(
    "--certificate",
    "certificates",
    multiple=True,
    type=_PATH,
    help="The key's certificate, then those that issued it (repeatable). Without it, the signature is by key only.",
)
@verb
def sign(output: Output, artifact: str, key: Path, certificates: tuple[Path, ...]) -> None:
    """Sign ARTIFACT: check every byte of it and write ARTIFACT.sig, a Sigstore bundle, beside it."""
    with open_artifact(artifact) as opened:
        with working("reading every byte", opened.container.size):
            path = sign_artifact(opened, key, certificates)
        output.put(artifact=artifact, signature=str(path), manifest_sha256=opened.manifest_sha256)
    output.say(f"wrote {path}; ship both files")
