"""``trtcross convert``: the artifact of another platform, where the engine allows it."""

from __future__ import annotations

import click

from toolchain.artifact import open_artifact
from toolchain.convert import convert_artifact
from toolchain.output import Report, verb
from toolchain.targets import Platform


@click.command()
@click.argument("artifact")
@click.option("-o", "--out", required=True, help="Where to write the new artifact.")
@click.option("--target", required=True, help="The platform to convert to: windows-x86_64 or linux-x86_64.")
@verb
def convert(report: Report, artifact: str, out: str, target: str) -> None:
    """Make of ARTIFACT the one of another platform; the engines stay the same to the byte."""
    platform = Platform.parse(target)
    with open_artifact(artifact) as opened:
        manifest = convert_artifact(opened, out, platform)
    report.put(artifact=out, target=platform.value, engines=[engine.sha256 for engine in manifest.engines])
    report.say(f"wrote {out} for {platform.value}; {len(manifest.engines)} engine(s), unchanged")
