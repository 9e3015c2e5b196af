"""``trtcross check``: whether an artifact can run on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from toolchain.artifact import Artifact, open_artifact
from toolchain.checker.safety import require_safe_to_load
from toolchain.cli.fields import field_options
from toolchain.cli.options import report_signer, signer_options, trust_option
from toolchain.cli.output import Output, requirement_lines, verb
from toolchain.cli.several import artifacts_argument, each, html_option, require_place
from toolchain.errors import IncompatibleError, UntrustedError
from toolchain.host.requirements import Requirement, State
from toolchain.progress import working
from toolchain.signing.artifact import require_signature
from toolchain.signing.policy import Policy
from windows_side.options import RunOptions
from windows_side.preflight.requirements import unmet
from windows_side.preflight.runtimes import check_for, choose_runtime


@click.command()
@artifacts_argument
@trust_option
@field_options(RunOptions, "runtime")
@html_option
@verb
@signer_options
def check(
    output: Output,
    artifacts: tuple[str, ...],
    trust: str | None,
    runtime: str,
    html: Path | None,
    policy: Policy | None,
) -> None:
    """Decide whether each ARTIFACT can run on this machine: every requirement, met or not, and how to meet it."""
    require_place(html, artifacts)
    each(output, artifacts, lambda part, artifact: _check(part, artifact, trust, runtime, html, policy))


def _check(
    output: Output, artifact: str, trust: str | None, runtime: str, html: Path | None, policy: Policy | None
) -> None:
    with open_artifact(artifact) as opened:
        if policy:
            with working("checking who signed it", opened.container.size):
                signer = require_signature(opened, policy)
            report_signer(output, signer)
        with working("looking at this machine"):
            chosen = choose_runtime(opened, runtime)
            requirements = [*check_for(opened, chosen), *_trust(opened, trust)]
        if html:
            from toolchain.report.render import render
            from toolchain.report.writing import write_report
            from windows_side.reports.check_page import check_page

            write_report(html, render(check_page(opened, requirements)))
    output.put(
        artifact=artifact, trust=trust, runtime=chosen.value, requirements=[item.to_json() for item in requirements]
    )
    output.say(f"{artifact} on this machine:")
    for line in requirement_lines(requirements):
        output.say(line)
    if missing := unmet(requirements):
        raise IncompatibleError(
            f"not here, because: {', '.join(item.name for item in missing)}",
            where=artifact,
            remedy="see each requirement above",
        )
    output.say("it can run here")


def _trust(artifact: Artifact, reason: str | None) -> list[Requirement]:
    """Returns whether ``load`` would trust a foreign file. An artifact of ours is checked when it is loaded."""
    if not artifact.foreign:
        return []
    needed = "a file of which torch runs nothing"
    try:
        require_safe_to_load(artifact, reason)
    except UntrustedError as error:
        return [Requirement("trust", State.NOT_MET, needed, error.problem, error.remedy)]
    return [Requirement("trust", State.MET, needed, "trusted: " + reason if reason else "plain data alone", None)]
