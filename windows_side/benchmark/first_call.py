"""Measures the time from a cold process to its first result, in a process of its own.

The child writes its JSON document to a file that the parent names. Windows passes no pipe to a Python child, and on
stdout the document could be mixed with what libraries print.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolchain.artifact import Artifact, open_artifact
from toolchain.errors import IncompatibleError, TrtcrossError, error_from_json
from toolchain.io.atomic import read_json
from toolchain.io.python_child import python_child
from toolchain.progress import working
from windows_side.options import LoadOptions, RunOptions
from windows_side.preflight.requirements import Runtime

_TIMEOUT = 600.0


@dataclass(frozen=True)
class FirstCall:
    """Seconds that a fresh process spends until its first two results.

    Attributes:
        imports: importing this package, and torch where it is needed.
        load: ``load`` or ``Session``, from the file to the engines on the GPU.
        first_call: the first call, which compiles the kernels unless they are cached.
        second_call: the call after it.
        cached: whether the kernel cache had the kernels.
    """

    imports: float
    load: float
    first_call: float
    second_call: float
    cached: bool


def measure_first_calls(artifact: Artifact, loading: LoadOptions) -> Iterator[tuple[str, FirstCall]]:
    """Measures two fresh processes: ``without_cache``, which fills an empty kernel cache, then ``with_cache``."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("without_cache", "with_cache"):
            options = loading.model_copy(update={"runtime_cache": folder})
            with working(f"timing a fresh process {name.replace('_', ' ')}"):
                measured = measure_first_call(artifact.path, options)
            yield name, measured


def measure_first_call(artifact: Path, loading: LoadOptions) -> FirstCall:
    """Loads and runs an artifact in a fresh process, which checks no signature.

    Raises:
        TrtcrossError: the process refused the artifact.
        IncompatibleError: the process crashed.
        subprocess.TimeoutExpired: the process took longer than ten minutes.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        options = loading.model_dump_json(exclude={"policy", "progress"})
        command = python_child("windows_side.benchmark.first_call", str(artifact), options, str(answer))
        result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
        document = read_json(answer) or {}
    if "error" in document:
        raise error_from_json(document["error"])
    if result.returncode or "measured" not in document:
        raise IncompatibleError(
            f"a fresh process could not run the artifact: {result.stderr.strip()[-500:]}",
            where=str(artifact),
            remedy="`trtcross verify` reports the reason",
        )
    return FirstCall(**document["measured"])


def _measure(artifact: str, loading: RunOptions) -> FirstCall:
    start = time.perf_counter()
    import torch

    from windows_side.execution.samples import sample_call
    from windows_side.loader.loading import load_artifact

    imported = time.perf_counter()
    with open_artifact(artifact) as opened:
        model = load_artifact(opened, loading)
        args, kwargs = sample_call(opened, model.device)
    torch.cuda.synchronize()
    loaded = time.perf_counter()
    model(*args, **kwargs)
    torch.cuda.synchronize()
    called = time.perf_counter()
    model(*args, **kwargs)
    torch.cuda.synchronize()
    again = time.perf_counter()
    return FirstCall(imported - start, loaded - imported, called - loaded, again - called, model.kernels_are_cached)


def _measure_session(artifact: str, loading: RunOptions) -> FirstCall:
    start = time.perf_counter()
    from windows_side.session.opening import open_session

    return _measure_in(open_session, artifact, loading, start)


def _measure_onnx(artifact: str, loading: RunOptions) -> FirstCall:
    start = time.perf_counter()
    from windows_side.onnxruntime.session import OnnxSession

    return _measure_in(OnnxSession, artifact, loading, start)


def _measure_in(
    opening: Callable[[Artifact, LoadOptions], Any], artifact: str, loading: RunOptions, start: float
) -> FirstCall:
    """Measures a session that is called with numpy arrays. Closing it, which writes kernels, is not timed."""
    from windows_side.session.samples import sample_leaves

    imported = time.perf_counter()
    with open_artifact(artifact) as opened, opening(opened, loading) as session:
        leaves = sample_leaves(opened)
        loaded = time.perf_counter()
        session.run_leaves(leaves)
        called = time.perf_counter()
        session.run_leaves(leaves)
        again = time.perf_counter()
        cached = session.kernels_are_cached
    return FirstCall(imported - start, loaded - imported, called - loaded, again - called, cached)


_MEASURES = {Runtime.TENSORRT.value: _measure_session, Runtime.ONNXRUNTIME.value: _measure_onnx}


def _main(artifact: str, options: str, answer: str) -> None:
    try:
        loading = RunOptions.model_validate_json(options)
        measure = _MEASURES.get(loading.runtime, _measure)
        document: dict[str, Any] = {"measured": asdict(measure(artifact, loading))}
    except TrtcrossError as error:
        document = {"error": error.to_json()}
    Path(answer).write_text(json.dumps(document), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])
