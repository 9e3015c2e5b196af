"""``trtcross verify``: integrity, structure, loading, numbers."""

from __future__ import annotations

import click

from toolchain.artifact import open_artifact
from toolchain.output import Report, verb
from toolchain.signing_policy import Policy
from windows_side.commands.signer_options import report_signer, signer_options
from windows_side.verification import LEVELS
from windows_side.verification import verify as verify_levels


@click.command()
@click.argument("artifact")
@click.option("--level", type=click.Choice(LEVELS), default="numbers", show_default=True, help="How far to go.")
@click.option("--device", default="cuda:0", show_default=True, help="Where to load it.")
@click.option("--allow-unlisted-gpu", is_flag=True, help="Try a GPU that the engine does not list.")
@verb
@signer_options
def verify(
    report: Report, artifact: str, level: str, device: str, allow_unlisted_gpu: bool, policy: Policy | None
) -> None:
    """Check ARTIFACT level by level: integrity, structure, load, numbers; each includes those before it."""
    results = []
    with open_artifact(artifact) as opened:
        steps = verify_levels(opened, level, device=device, allow_unlisted_gpu=allow_unlisted_gpu, policy=policy)
        for result in steps:
            results.append(result)
            report.say(f"{result.level}: {'ok' if result.passed else 'FAILED'}  ({result.seconds:.2f} s)")
            if "signer" in result.details:
                report_signer(report, result.details["signer"])
            for output in result.details.get("outputs", ()):
                report.say(
                    f"  sample {output['sample']} {output['name']}: relative error {output['relative_l2']:.2e}, "
                    f"max {output['max_absolute']:.2e}, cosine {output['cosine']:.6f}"
                )
    report.put(artifact=artifact, levels=[result.to_json() for result in results])
    if results[-1].error:
        raise results[-1].error
