"""The child process of a build: one job in on stdin, events out on stdout, one JSON document a line.

Torch-TensorRT's import on a machine without a GPU, its process-wide registries and its memory stay in here.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from toolchain.errors import TrtcrossError
from toolchain.install import install_lines
from toolchain.manifest import BuildRecord, CallSpec, Coverage, FallbackOperator, Producer, SourceModel, TargetSpec


class Progress:
    """Tells the parent which phase runs, and remembers how long each took."""

    def __init__(self, events: TextIO) -> None:
        self._events = events
        self.seconds: dict[str, float] = {}

    def send(self, **event: Any) -> None:
        self._events.write(json.dumps(event) + "\n")
        self._events.flush()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.send(event="start", phase=name)
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 3)
        self.send(event="end", phase=name, seconds=self.seconds[name])


def main() -> int:
    # Whatever prints to stdout meanwhile, the C++ side too, must not get between the events.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    progress = Progress(events)
    job = json.loads(sys.stdin.read())
    try:
        run_job(job, progress)
    except TrtcrossError as error:
        traceback.print_exc()
        progress.send(event="error", error=error.to_json())
        return 1
    progress.send(event="done")
    return 0


def run_job(job: dict[str, Any], progress: Progress) -> None:
    """Builds one artifact.

    Args:
        job: ``model`` (a path or ``module:factory``), ``name`` or None, ``out``, ``spool``, ``options``.
    """
    from linux_side.backends import engine_builder
    from linux_side.options import BuildOptions

    options = BuildOptions.model_validate(job["options"])
    builder = engine_builder(options.backend)
    packages = builder.packages()
    builder.check_gpus(options.capabilities)
    spool, out = Path(job["spool"]), Path(job["out"])

    with progress.phase("import"):
        import torch

        builder.import_upstream(options.capabilities)
        from linux_side import compile as compiling
        from linux_side.dynamic import narrowed_ranges, profiles_for
        from linux_side.exporter import export
        from linux_side.exporter.engine_module import compiled_engine
        from linux_side.exporter.program import CallStructure
        from linux_side.golden import describe_golden, serialize_golden
        from linux_side.leaves import describe_inputs, describe_outputs, forward_names
        from linux_side.source import load_source
        from linux_side.write_artifact import program_digest, serialize_program, write_artifact
        from toolchain.graph_text import engine_token
    with progress.phase("export"):
        source = load_source(job["model"], options)
        program = source.program
        profiles = profiles_for(program, options.dynamic)
        original = spool / "model.pt2"
        torch.export.save(program, original)
        digest = program_digest(original)
        original.unlink()
    with progress.phase("lower"):
        partitioned = compiling.lower_program(program, options, builder)
    with progress.phase("convert"):
        compiled = compiling.convert_partitions(partitioned, options, builder, profiles, spool)
    with progress.phase("serialize"):
        ranges = narrowed_ranges(program, profiles)
        spec = program.call_spec
        structure = CallStructure(spec.in_spec, spec.out_spec, forward_names(program))
        result = export(
            compiled.gm,
            cross_compile=True,
            structure=structure,
            range_constraints=ranges,
            original={spec.target: spec for spec in program.graph_signature.input_specs if spec.target},
            engine_field=lambda _, index: engine_token(index),
        )
        engines = [
            engine
            for node in compiled.gm.graph.nodes
            if node.op == "call_module" and (engine := compiled_engine(compiled.gm.get_submodule(node.target)))
        ]
        serialized = serialize_program(result, spool)
        golden = serialize_golden(source.golden) if source.golden else None
    torch_tensorrt, tensorrt = packages
    producer = Producer(
        trtcross=metadata.version("trtcross"),
        torch=torch.__version__,
        torch_tensorrt=torch_tensorrt,
        tensorrt=tensorrt,
        python=platform.python_version(),
        os=f"{platform.system()} {platform.machine()}",
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        driver=None,
    )
    target = _target(options, builder.backend, engines, tensorrt.version)
    with progress.phase("write"):
        precision = options.precision or "fp32"
        write_artifact(
            out,
            serialized,
            engines,
            compiled.facts,
            golden,
            {
                "created": datetime.now(timezone.utc),
                "producer": producer,
                "model": SourceModel(name=job["name"] or source.name, digest=digest),
                "settings": options.model_dump(mode="json"),
                "target": target,
                "install": install_lines(target, producer),
                "call": _call_spec(result, forward_names(program)),
                "inputs": describe_inputs(result, ranges),
                "outputs": describe_outputs(result, ranges),
                "fallback": [
                    FallbackOperator(operator=name, count=count, device="cuda:0")
                    for name, count in sorted(compiled.fallback.items())
                ],
                "coverage": Coverage(
                    operators=compiled.in_engines + compiled.fallback.total(), in_engines=compiled.in_engines
                ),
                "golden": describe_golden(source.golden, precision) if source.golden else None,
                "build": BuildRecord(seconds=progress.seconds, cache_key=None, from_cache=False),
            },
        )


def _call_spec(program: Any, names: list[str]) -> CallSpec:
    from torch.utils import _pytree as pytree

    spec = program.call_spec
    return CallSpec(
        in_spec=pytree.treespec_dumps(spec.in_spec),
        out_spec=pytree.treespec_dumps(spec.out_spec),
        argument_names=names,
    )


def _target(options: Any, backend: Any, engines: list[Any], release: str) -> TargetSpec:
    from toolchain.engine_info import CURRENT_ABI
    from toolchain.plan import HEADER_SIZE, parse_plan_header

    head = bytes(next(iter(engines[0].plan.chunks())))[:HEADER_SIZE]
    header = parse_plan_header(head, where=engines[0].info.name)
    capabilities = [str(c) for c in header.capabilities] or [str(c) for c in options.capabilities]
    return TargetSpec(
        platform=options.target,
        compute_capabilities=capabilities,
        backend=backend,
        runtime=header.release or release,
        abi_version=CURRENT_ABI,
    )


if __name__ == "__main__":
    sys.exit(main())
