"""``trtcross warm``: compiles an artifact's kernels ahead of its first call."""

from __future__ import annotations

from dataclasses import asdict

import click

from toolchain.cli.offers import files
from toolchain.cli.output import Output, verb
from windows_side.commands.load_options import load_options
from windows_side.options import RunOptions
from windows_side.warming.sizes import parse_sizes
from windows_side.warming.warm import WarmEvent, warm_by


@click.command()
@click.argument("artifact", shell_complete=files)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="NAME.DIM=N[,...]",
    help="Sizes of a call to come, once for each; by default the `opt` of each profile.",
)
@verb
@load_options("runtime")
def warm(output: Output, artifact: str, sizes: tuple[str, ...], loading: RunOptions) -> None:
    """Compile the kernels of ARTIFACT for this GPU ahead, into the cache from which first calls take them."""
    wanted = [parse_sizes(text) for text in sizes] or None
    report = warm_by(artifact, loading, wanted, lambda event: _say(output, event))
    output.put(
        artifact=artifact,
        runtime=report.runtime,
        device=loading.device,
        calls=[{name: value for name, value in asdict(call).items() if name != "kind"} for call in report.calls],
        seconds=report.seconds,
        folder=report.folder,
    )
    output.say(f"kernels for {len(report.calls)} call(s) are in {report.folder} after {report.seconds:.1f} s")


def _say(output: Output, event: WarmEvent) -> None:
    sizes = ", ".join(f"{name}={size}" for name, size in event.sizes.items()) or "the sizes that it has"
    how = f"{sizes}{', in CUDA graphs' if event.cuda_graphs else ''}"
    if event.kind == "start":
        output.say(f"compiling for {how} ...")
    elif event.kind == "end":
        output.say(f"  {event.seconds:.1f} s")
    else:
        output.say(f"  {event.seconds:.0f} s so far", level=1)
