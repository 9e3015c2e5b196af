"""``trtcross inspect``: what an artifact is, what it needs and what is in it. Nothing in the file is run."""

from __future__ import annotations

from pathlib import Path

import click

from toolchain.artifact import Artifact, open_artifact
from toolchain.cli.output import Output, verb
from toolchain.cli.several import artifacts_argument, each, html_option, require_place
from toolchain.formats.plugins import plugin_line
from toolchain.graph.torch_free import surely_runs_without_torch
from toolchain.manifest.describe import size_lines, value_text
from toolchain.manifest.models import (
    FOREIGN,
    TRUST,
    Manifest,
    PrecisionRecord,
    ValueSpec,
    fallback_warnings,
    golden_text,
    golden_warnings,
)
from toolchain.progress import working
from toolchain.text import size_text


@click.command()
@artifacts_argument
@click.option("--digests", is_flag=True, help="Read every byte and check its digest.")
@html_option
@verb
def inspect(output: Output, artifacts: tuple[str, ...], digests: bool, html: Path | None) -> None:
    """Show what each ARTIFACT is, what it needs, its engines, and what stays in PyTorch."""
    require_place(html, artifacts)
    each(output, artifacts, lambda part, artifact: _inspect(part, artifact, digests, html))


def _inspect(output: Output, artifact: str, digests: bool, html: Path | None) -> None:
    with open_artifact(artifact) as opened:
        headers_agree = all(_header_agrees(opened, index) for index in range(len(opened.engines)))
        if digests:
            with working("reading every byte", opened.container.size):
                opened.check_integrity()
        manifest = opened.manifest
        output.put(
            artifact=str(opened.path),
            size=opened.container.size,
            digests_checked=digests,
            foreign=opened.foreign,
            plan_headers_agree=headers_agree,
            manifest=manifest.model_dump(),
            sizes=size_lines(manifest),
        )
        output.say(f"{opened.path}  ({size_text(opened.container.size)})")
        if html:
            from toolchain.pages.artifact_page import artifact_page
            from toolchain.report.render import render
            from toolchain.report.writing import write_report

            write_report(html, render(artifact_page(opened)))
    for line in manifest_lines(manifest):
        output.say(line)
    output.say("digests: " + _digests_text(opened, digests))
    if not headers_agree:
        output.say("warning: an engine's plan header is not the one in the manifest", level=-1)


def _digests_text(opened: Artifact, checked: bool) -> str:
    if opened.foreign:
        return "there are none in the file; every byte was read, and the archive's CRCs agree"
    return "every byte checked" if checked else "not read (--digests reads every byte)"


def _header_agrees(opened: Artifact, index: int) -> bool:
    engine = opened.engines[index]
    header, facts = engine.plan_header(), engine.entry.plan
    return (header.release, header.capability_mask) == (facts.release, facts.capability_mask)


def manifest_lines(manifest: Manifest) -> list[str]:
    """Formats a manifest for people, as lines."""
    target = manifest.target
    lines = [
        f"model:    {manifest.model.name}",
        f"target:   {target.platform.value}, {target.backend.value} {target.runtime}, "
        f"GPUs {' '.join(target.compute_capabilities) or 'as the engine decides'}, ABI {target.abi_version}",
        _built_line(manifest),
        *_precision_line(manifest),
        *_value_lines("input", manifest.inputs),
        *_value_lines("output", manifest.outputs),
        *(f"sizes:    {line}" for line in size_lines(manifest)),
    ]
    for engine in manifest.engines:
        names = ", ".join(binding.name for binding in engine.inputs)
        results = ", ".join(binding.name for binding in engine.outputs)
        lines.append(f"engine:   {engine.name}  {size_text(engine.size)}  ({names}) -> ({results})")
        lines.append(f"          sha256 {engine.sha256}")
    lines.append(_coverage_line(manifest))
    for operator in manifest.fallback:
        lines.append(f"          in PyTorch: {operator.operator} x{operator.count} on {operator.device}")
    lines.extend(f"          {text}" for text in fallback_warnings(manifest))
    if manifest.precision:
        lines.extend(_precision_lines(manifest.precision))
    lines.append(f"golden:   {golden_text(manifest)}")
    lines.extend(f"          {text}" for text in golden_warnings(manifest))
    if not manifest.stock_readable:
        lines.append("note:     too big for torch.export.load; trtcross reads it")
    lines.append("to set up a machine for it:")
    lines.extend(f"  {line}" for line in manifest.install)
    line = plugin_line(manifest)
    if line and surely_runs_without_torch([item.operator for item in manifest.fallback]):
        lines += ["or for its ONNX model (trtcross convert --format onnx):", f"  {line}"]
    return lines


def _precision_line(manifest: Manifest) -> list[str]:
    """Formats the precision that the build was asked for; it is not known of a foreign file."""
    if manifest.settings.get(FOREIGN):
        return []
    return [f"precision: {manifest.settings.get('precision') or 'as the model has it'}"]


def _precision_lines(precision: PrecisionRecord) -> list[str]:
    stayed = sum(precision.in_fp32.values())
    lines = [f"halves:   {precision.in_halves} operators in {precision.halves}, {stayed} stayed in fp32"]
    if precision.keep_fp32:
        lines.append("          kept beyond the rules: " + ", ".join(precision.keep_fp32))
    lines += [f"          in fp32: {reason} x{count}" for reason, count in precision.in_fp32.items()]
    known = [(index, error) for index, error in enumerate(precision.errors) if error is not None]
    lines += [f"          output {index} loses {error:.1e} against fp32" for index, error in known]
    return [*lines, *(f"          {text}" for text in precision.warnings)]


def _built_line(manifest: Manifest) -> str:
    producer = manifest.producer
    when = f"{manifest.created:%Y-%m-%d %H:%M} UTC"
    stack = f"torch {producer.torch}, {producer.torch_tensorrt.name} {producer.torch_tensorrt.version}"
    if saver := manifest.settings.get(FOREIGN):
        trusted = f"; trusted because: {reason}" if (reason := manifest.settings.get(TRUST)) else ""
        return f"saved:    by {saver} ({stack}), not built by trtcross; {when}{trusted}"
    return f"built:    {when} by trtcross {producer.trtcross}, {stack}, on {producer.os}, {producer.gpu or 'no GPU'}"


def _coverage_line(manifest: Manifest) -> str:
    coverage = manifest.coverage
    if coverage.in_engines is None:
        return f"coverage: not known; {sum(item.count for item in manifest.fallback)} operator(s) stay in PyTorch"
    return f"coverage: {coverage.in_engines} of {coverage.operators} operators run in TensorRT"


def _value_lines(kind: str, values: list[ValueSpec]) -> list[str]:
    return [f"{kind + ':':<10}{value_text(value)}" for value in values]
