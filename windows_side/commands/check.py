"""``trtcross check``: preflight on this machine."""

from __future__ import annotations

import click

from toolchain.artifact import open_artifact
from toolchain.errors import IncompatibleError
from toolchain.output import Report, verb
from toolchain.requirements import requirement_lines
from toolchain.signing import require_signature
from toolchain.signing_policy import Policy
from windows_side.commands.signer_options import report_signer, signer_options
from windows_side.preflight import check as check_requirements
from windows_side.preflight import unmet


@click.command()
@click.argument("artifact")
@verb
@signer_options
def check(report: Report, artifact: str, policy: Policy | None) -> None:
    """Decide whether ARTIFACT can run on this machine: every requirement, met or not, and how to meet it."""
    with open_artifact(artifact) as opened:
        if policy:
            report_signer(report, require_signature(opened, policy))
        requirements = check_requirements(opened)
    report.put(artifact=artifact, requirements=[item.to_json() for item in requirements])
    report.say(f"{artifact} on this machine:")
    for line in requirement_lines(requirements):
        report.say(line)
    if missing := unmet(requirements):
        raise IncompatibleError(
            f"not here, because: {', '.join(item.name for item in missing)}",
            where=artifact,
            remedy="see each requirement above",
        )
    report.say("it can run here")
