"""Adds the results that ci/windows-gpu.ps1 wrote to the site's page "What was run where".

    python ci/windows_gpu_table.py windows-gpu.json [docs/verify/where.md]

Each machine has one row, which a later file of the same machine replaces. The file comes from a stranger: its texts are
cut and escaped, and a file that does not have the script's form is refused.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- windows-gpu: ci/windows_gpu_table.py writes this -->", "<!-- windows-gpu: end -->"
HEADING = (
    "| machine | PyTorch | `Session`, without torch | ONNX Runtime | bench, median | when |\n|---|---|---|---|---|---|"
)
_CELL = 160


class ResultError(Exception):
    """The file is not one that ci/windows-gpu.ps1 wrote."""


def checked(document: Any) -> dict[str, Any]:
    """Checks the form of a result file and returns its document.

    Raises:
        ResultError: a member is missing, or has a wrong type or value.
    """
    if not isinstance(document, dict) or document.get("version") != 1:
        raise ResultError("version: it is not 1")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}T[\d:+]+", str(document.get("date"))):
        raise ResultError("date: it is not a time in ISO 8601")
    machine, steps = document.get("machine"), document.get("steps")
    if not isinstance(machine, dict) or not all(isinstance(value, str) for value in machine.values()):
        raise ResultError("machine: it is not an object of texts")
    if not isinstance(steps, list):
        raise ResultError("steps: it is not a list")
    kinds: dict[str, tuple[type, ...]] = {
        "name": (str,), "artifact": (str,), "code": (int,), "seconds": (int, float), "facts": (dict,), "tail": (str,),
    }  # fmt: skip
    for index, step in enumerate(steps):
        for name, kind in kinds.items():
            if not isinstance(step, dict) or not isinstance(step.get(name), kind) or isinstance(step.get(name), bool):
                raise ResultError(f"steps[{index}].{name}: it is missing, or has a wrong type")
        for name in ("relative_l2", "median_ms"):
            value = step["facts"].get(name, 0.0)
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise ResultError(f"steps[{index}].facts.{name}: it is not a number")
    return document


def row(document: Mapping[str, Any]) -> str:
    """Makes a machine's row of the table."""
    machine, steps = document["machine"], document["steps"]
    where = f"{machine.get('GPU', 'unknown GPU')}, driver {machine.get('driver', 'unknown')}, {machine.get('os', '')}"
    verified = [_verified(steps, runtime) for runtime in ("torch", "tensorrt", "onnxruntime")]
    benched = [step for step in steps if step["name"] == "bench" and "median_ms" in step["facts"]]
    medians = "; ".join(f"{step['artifact']} {step['facts']['median_ms']:.3f} ms" for step in benched)
    return "| " + " | ".join(map(_cell, [where, *verified, medians or "none", document["date"][:10]])) + " |"


def _verified(steps: Iterable[Mapping[str, Any]], runtime: str) -> str:
    own = [step for step in steps if step["name"] == f"verify {runtime}"]
    passed = [step for step in own if step["code"] == 0]
    if not own:
        return "not tried"
    errors = [step["facts"]["relative_l2"] for step in passed if "relative_l2" in step["facts"]]
    worst = f", relative error up to {max(errors):.1e}" if errors else ""
    why = {str(step["facts"].get("error", f"exit code {step['code']}")) for step in own if step["code"]}
    return f"{len(passed)} of {len(own)} right{worst}" + (f"; {'; '.join(sorted(why))}" if why else "")


def _cell(text: str) -> str:
    """Makes a stranger's text fit for a cell: without markup and line ends, and cut."""
    plain = re.sub(r"\s+", " ", "".join(c for c in text if c.isprintable() or c.isspace()))
    plain = plain if len(plain) <= _CELL else plain[:_CELL] + "\u2026"
    return re.sub(r"([\\`*_{}\[\]<>#|&])", r"\\\1", plain)


def taken(page: str, line: str) -> str:
    """Puts a row into the page, in place of an earlier one of the same machine.

    Raises:
        ResultError: the page lacks the marks around the table.
    """
    before, begin, rest = page.partition(BEGIN)
    table, end, after = rest.partition(END)
    if not begin or not end:
        raise ResultError(f"the page has no lines {BEGIN!r} and {END!r}")
    machine = line.split(" | ")[0]
    rows = [
        item for item in table.strip().splitlines()[2:] if item.split(" | ")[0] != machine and "never run" not in item
    ]
    return f"{before}{begin}\n\n{HEADING}\n" + "\n".join([*rows, line]) + f"\n\n{end}{after}"


def main() -> None:
    page = Path(sys.argv[2] if len(sys.argv) > 2 else "docs/verify/where.md")
    try:
        document = checked(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
        text = taken(page.read_text(encoding="utf-8"), row(document))
    except (ValueError, ResultError) as error:
        sys.exit(f"{sys.argv[1]}: {error}")
    page.write_text(text, encoding="utf-8")
    print(row(document))


if __name__ == "__main__":
    main()
