"""The command line of benchmarks that build their artifacts without a GPU and run them on a host that has one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


def build_or_run(usage: str | None, build: Callable[[Path], None], measured: Callable[[Path], Iterator[Row]]) -> None:
    """Runs ``build FOLDER`` or ``run FOLDER [OUT.json]``; prints each row, and writes all rows after each.

    Args:
        usage: the message for any other arguments.
        build: builds the artifacts into a folder.
        measured: yields the rows of the artifacts in a folder.
    """
    match sys.argv[1:]:
        case ["build", folder]:
            build(Path(folder))
        case ["run", folder]:
            _run(measured(Path(folder)), None)
        case ["run", folder, out]:
            _run(measured(Path(folder)), Path(out))
        case _:
            sys.exit(usage)


def _run(rows: Iterator[Row], out: Path | None) -> None:
    document: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": []}
    for row in rows:
        document["rows"].append(row)
        print(json.dumps(row), flush=True)
        if out:
            out.write_text(json.dumps(document, indent=1) + "\n")
