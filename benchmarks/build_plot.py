"""Draws what builds of growing size take, from the figures that ``benchmarks.build --json`` appended to a file.

python -m benchmarks.build_plot BUILDS.jsonl OUT.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.plot import log_plot

_MIB = 2**20


def plot_builds(builds: list[dict[str, Any]]) -> str:
    """Returns the peaks of memory and of disk, and the artifact, over the size of the plan, as SVG.

    Args:
        builds: of one architecture with one engine, each as ``benchmarks.build`` writes it. A plan is three quarters of
            its artifact, which holds it as base64.
    """
    builds = sorted(builds, key=lambda build: build["size"])
    plans = [0.75 * build["size"] / _MIB for build in builds]
    peaks = [max(phase["anonymous"] for phase in build["phases"].values()) / _MIB for build in builds]
    series = {
        "anonymous memory, at the peak": peaks,
        "1.6 times the plan": [1.6 * plan for plan in plans],
        "disk, at the peak": [build["disk"] / _MIB for build in builds],
        "artifact": [build["size"] / _MIB for build in builds],
    }
    named = {
        name: list(zip((float(round(plan)) for plan in plans), values, strict=True)) for name, values in series.items()
    }
    return log_plot(named, title="A build by the size of its model", x_title="plan, MiB", y_title="MiB")


def main(builds: str, out: str) -> None:
    lines = Path(builds).read_text().splitlines()
    Path(out).write_text(plot_builds([json.loads(line) for line in lines]))


if __name__ == "__main__":
    main(*sys.argv[1:])
