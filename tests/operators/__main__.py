"""``python -m tests.operators table | try | build | run``."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import warnings
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.operators")
    verbs = parser.add_subparsers(dest="verb", required=True)
    table = verbs.add_parser("table", help="try every operator and write docs/build/operators.md")
    table.add_argument("-n", type=int, default=5, help="trials of each")
    tried = verbs.add_parser("try", help="try some operators and show what came of them")
    tried.add_argument("names", nargs="*")
    tried.add_argument("-n", type=int, default=8)
    tried.add_argument("--kind", help="all of a kind, by the start of its name")
    tried.add_argument("--before", action="store_true", help="as Torch-TensorRT does it")
    tried.add_argument("--build", action="store_true", help="build the engines too")
    build = verbs.add_parser("build", help="build artifacts for a GPU host")
    build.add_argument("folder", type=Path)
    build.add_argument("-n", type=int, default=1)
    run = verbs.add_parser("run", help="on a GPU host: run what build made")
    run.add_argument("folder", type=Path)
    run.add_argument("out", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    if options.verb == "run":
        from tests.operators import on_gpu

        return min(on_gpu.run(options.folder, options.out), 1)
    from tests.integration.harness import imported_builder

    imported_builder()
    logging.getLogger("torch_tensorrt").setLevel(logging.CRITICAL)
    if options.verb == "build":
        from tests.operators import on_gpu

        on_gpu.build(options.folder, options.n)
        return 0
    if options.verb == "table":
        from tests.operators.table import write_table

        return min(write_table(options.n), 1)
    return min(_try(options), 1)


def _try(options: argparse.Namespace) -> int:
    from tests.operators.catalogue import ALL, KINDS
    from tests.operators.runner import as_upstream_does, run_operator

    names = options.names or list(ALL)
    if options.kind:
        names = [name for kind, rows in KINDS.items() if kind.lower().startswith(options.kind) for name in rows]
    wrong = 0
    for name in names:
        with as_upstream_does() if options.before else contextlib.nullcontext():
            row = run_operator(name, ALL[name], options.n, options.build)
        wrong += row.wrong
        print(
            f"{name}: {row.inputs} inputs, {row.by_interpreter} interpreter, {row.by_partition} partition, "
            f"{row.in_torch} PyTorch, {row.refused} refused, {row.wrong} wrong",
            *row.problems[:3],
            sep="\n     ",
            flush=True,
        )
    return wrong


if __name__ == "__main__":
    sys.exit(main())
