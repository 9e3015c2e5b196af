"""``trtcross convert``: an artifact, or files for a different runtime, with the same engines."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import click

from toolchain.artifact import Artifact, open_artifact
from toolchain.cli.offers import files, one_of
from toolchain.cli.options import trust_option
from toolchain.cli.output import Output, verb
from toolchain.convert import GoldenData, convert_artifact
from toolchain.errors import MissingComponentError, UsageError
from toolchain.formats.convert import FORMATS, convert_to
from toolchain.formats.plugins import set_up_lines
from toolchain.host.installed import install_line
from toolchain.manifest.models import golden_text, golden_warnings
from toolchain.progress import working
from toolchain.targets import Platform

# The entry points that make golden I/O from an original model: the producer's side registers one.
GOLDEN_GROUP = "trtcross.golden"


@click.command()
@click.argument("artifact", shell_complete=files)
@click.option("-o", "--out", required=True, shell_complete=files, help="Where to write the new artifact.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(FORMATS),
    default="pt2",
    show_default=True,
    help="An artifact, an ONNX model for onnxruntime and Windows ML, or a folder of plain engines.",
)
@click.option(
    "--engines",
    type=click.Choice(["auto", "embedded", "beside"]),
    default="auto",
    show_default=True,
    help="With --format onnx: in the file, or in files beside it (auto: beside it if they are too big).",
)
@click.option(
    "--target",
    shell_complete=one_of([platform.value for platform in Platform]),
    help="The platform to convert to: windows-x86_64 or linux-x86_64.",
)
@click.option("--torch-tensorrt", "release", metavar="RELEASE", help="Write this release's engine info, such as 2.14.")
@click.option(
    "--golden-from",
    metavar="MODEL",
    shell_complete=files,
    help="The original (a .pt2 program, module:factory or ./file.py:factory), for golden I/O.",
)
@click.option("--golden", default=1, show_default=True, type=click.IntRange(1), help="Samples, with --golden-from.")
@trust_option
@verb
def convert(
    output: Output,
    artifact: str,
    out: str,
    format_name: str,
    engines: str,
    target: str | None,
    release: str | None,
    golden_from: str | None,
    golden: int,
    trust: str | None,
) -> None:
    """Convert ARTIFACT to a different platform or format; the engines stay the same to the byte.

    An artifact of trtcross becomes one for a different platform or release. A file that Torch-TensorRT itself saved
    becomes an artifact with a manifest, without pickles, and with golden I/O if --golden-from gives the original
    model. With --format, the same engines are written for a different runtime.
    """
    if format_name != "pt2":
        given = {"--target": target, "--torch-tensorrt": release, "--golden-from": golden_from, "--trust": trust}
        _convert_to(output, artifact, out, format_name, engines, [name for name, value in given.items() if value])
        return
    platform = Platform.parse(target) if target else None
    with open_artifact(artifact) as opened:
        foreign = opened.foreign
        if not (foreign or platform or release or golden_from):
            raise UsageError(
                "it is an artifact of trtcross already", where=artifact, remedy="say what to change, such as --target"
            )
        made, source = _golden(opened, golden_from, golden) if golden_from else (None, None)
        with working(f"writing {out}", opened.container.size):
            manifest = convert_artifact(opened, out, platform, release=release, golden=made, trust=trust)
    output.put(
        artifact=out,
        target=manifest.target.platform.value,
        engines=[engine.sha256 for engine in manifest.engines],
        foreign=foreign,
        golden_inputs=source,
        trust=trust,
    )
    output.say(f"wrote {out} for {manifest.target.platform.value}; {len(manifest.engines)} engine(s), unchanged")
    if source and manifest.golden:
        output.say(f"golden: {golden_text(manifest)}, inputs from {source}, outputs from {golden_from} on the CPU")
        for text in golden_warnings(manifest):
            output.say(f"warning: {text}", level=-1)
    elif manifest.golden is None:
        output.say("golden: none; to record outputs to compare with, give the original model: --golden-from MODEL")


def _convert_to(output: Output, artifact: str, out: str, format_name: str, engines: str, given: list[str]) -> None:
    """Writes the engines for a different runtime, and reports the files."""
    if given:
        raise UsageError(
            f"{', '.join(given)} applies only to artifacts",
            where=f"--format {format_name}",
            remedy="convert the artifact to another artifact first",
        )
    with open_artifact(artifact) as opened:
        converted = convert_to(format_name, opened, Path(out), engines=engines)
    manifest = converted.source.manifest
    lines = set_up_lines(manifest) if format_name == "onnx" else []
    output.put(
        artifact=out,
        format=format_name,
        files=[str(file) for file in converted.files],
        engines=[engine.sha256 for engine in manifest.engines],
        manifest_sha256=converted.source.manifest_sha256,
        set_up=lines,
    )
    output.say(f"wrote {out}; {len(manifest.engines)} engine(s), unchanged, of {artifact}")
    if lines:
        output.say("to set up a machine that runs it from Python:")
        for line in lines:
            output.say(f"  {line}")


def _golden(opened: Artifact, model: str, samples: int) -> tuple[GoldenData, str]:
    try:
        for entry in metadata.entry_points(group=GOLDEN_GROUP):
            with working(f"running {model} for golden outputs"):
                found: tuple[GoldenData, str] = entry.load()(opened, model, samples)
            return found
        missing = "the producer's side"
    except ModuleNotFoundError as error:
        missing = f"the module {error.name}"
    raise MissingComponentError(
        f"--golden-from needs {missing}, which is not installed here",
        remedy=install_line("producer"),
    )
