"""The page of ``trtcross bench --html``, made from the document that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolchain.report.page import Bin, Facts, Histogram, Mark, Page, Section, Table, TableCell, Text, Verdict
from toolchain.text import size_text

_BINS = 24


def bench_page(document: dict[str, Any]) -> Page:
    """Returns the page of a benchmark.

    Args:
        document: the document of ``bench --json``; latencies are in milliseconds.
    """
    latency = document["latency"]
    mode = "CUDA graphs" if document["cuda_graphs"] else "launched call by call"
    return Page(
        title=f"Benchmark of {Path(document['artifact']).name}",
        subtitle=document["machine"]["gpu"],
        verdict=Verdict(
            Mark.GOOD,
            f"{latency['median']:.4f} ms a call",
            reason=f"median of {len(latency['samples'])} calls, one at a time, {mode}",
        ),
        sections=list(_sections(document)),
    )


def histogram(samples: list[float], caption: str) -> Histogram:
    """Returns a histogram of milliseconds up to the 99th percentile; longer calls are in the last column."""
    ordered = sorted(samples)
    low, high = ordered[0], ordered[int(0.99 * (len(ordered) - 1))]
    step = (high - low) / _BINS or 1e-6
    counts = [0] * _BINS
    for sample in ordered:
        counts[min(int((sample - low) / step), _BINS - 1)] += 1
    bins = [
        Bin(f"{low + i * step:.4f} to {low + (i + 1) * step:.4f} ms", count,
            tick=f"{low + i * step:.3f}" if i % 6 == 0 else "")
        for i, count in enumerate(counts)
    ]  # fmt: skip
    return Histogram(caption, bins, summary=f"{len(ordered)} calls between {ordered[0]:.4f} and {ordered[-1]:.4f} ms")


def _sections(document: dict[str, Any]) -> Iterator[Section]:
    rows = [_row("this artifact", document["latency"])]
    if document["original"]:
        rows.append(_row("the original in eager PyTorch", document["original"]["latency"]))
    throughput = document["throughput"]
    yield Section(
        "Latency",
        [
            Table(["one call at a time, ms", "median", "5%", "95%", "mean"], rows),
            histogram(list(document["latency"]["samples"]), "Milliseconds of each call"),
            Text(
                f"Back to back: {throughput['milliseconds']:.4f} ms a call, "
                f"{throughput['calls_per_second']:.0f} calls a second."
            ),
        ],
    )
    if "first_call" in document:
        columns = ["a fresh process, seconds", "imports", "load", "first call", "second call"]
        calls = document["first_call"].items()
        yield Section("First call", [Table(columns, [_first_call(name, measured) for name, measured in calls])])
    memory = document["gpu_memory"]
    yield Section(
        "GPU memory",
        [Facts([("after loading", size_text(memory["loaded"])), ("at the peak", size_text(memory["peak"]))])],
    )
    yield Section("Machine", [Facts(list(document["machine"].items()))])


def _row(name: str, latency: dict[str, Any]) -> list[str | TableCell]:
    return [name, *(TableCell(f"{latency[key]:.4f}", number=True) for key in ("median", "p5", "p95", "mean"))]


def _first_call(name: str, measured: dict[str, Any]) -> list[str | TableCell]:
    keys = ("imports", "load", "first_call", "second_call")
    return [name.replace("_", " "), *(TableCell(f"{measured[key]:.3f}", number=True) for key in keys)]
