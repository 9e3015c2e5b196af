"""Stock ``torch.export.load`` reads engines as they were written, with any bytes, any number of them and any names."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import synthetic
from tests.integration.harness import imported_builder
from toolchain import open_artifact
from toolchain.container.entry_names import GRAPH_ENTRY
from toolchain.container.writer import ContainerWriter
from toolchain.engine.info import ARGUMENTS
from toolchain.graph.writer import EngineSource, engine_from_buffer, write_graph
from toolchain.io.base64_stream import RAW_CHUNK

pytestmark = [pytest.mark.rtx, pytest.mark.xdist_group("container stock")]

# A process with plain torch, which knows only the placeholder operator's name; it reads one path after the other.
READER = """
import base64, hashlib, json, sys
import torch
if "toolchain" in sys.modules:
    raise SystemExit("trtcross was imported")
fields = ", ".join(f"str {name}" for name in sys.argv[1:])
library = torch.library.Library("tensorrt", "DEF")
library.define(f"no_op_placeholder_for_execute_engine(Tensor[] inputs, {fields}) -> Tensor[]")
for line in sys.stdin:
    program = torch.export.load(json.loads(line))
    calls = [n.args[1:] for n in program.graph.nodes if "no_op_placeholder_for_execute_engine" in str(n.target)]
    engines = [hashlib.sha256(base64.b64decode(c[3], validate=True)).hexdigest() for c in calls]
    print("RESULT" + json.dumps({"engines": engines, "names": [c[1] for c in calls]}), flush=True)
"""

Stock = Callable[[Path], dict[str, Any]]

# Lengths around the ends of base64 groups and of streamed chunks.
LENGTHS = st.one_of(
    st.integers(0, 200), st.integers(RAW_CHUNK - 4, RAW_CHUNK + 4), st.integers(2 * RAW_CHUNK - 2, 2 * RAW_CHUNK + 2)
)
# A lone surrogate is no character, and the manifest refuses control characters of terminals.
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), max_size=40)


@st.composite
def plans(draw: st.DrawFn) -> bytes:
    """Draws bytes of a drawn length: drawn ones at first, and then bytes that follow from these."""
    length, start = draw(LENGTHS), draw(st.binary(max_size=64))
    return (start + hashlib.shake_256(start).digest(length))[:length]


@pytest.fixture(scope="module")
def stock() -> Iterator[Stock]:
    command = [sys.executable, "-c", READER, *ARGUMENTS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/") as process:
        assert process.stdin and process.stdout
        stdin, stdout = process.stdin, process.stdout

        def read(path: Path) -> dict[str, Any]:
            stdin.write(json.dumps(str(path)) + "\n")
            stdin.flush()
            line = next((line for line in stdout if line.startswith("RESULT")), None)
            assert line, "the stock reader failed"
            return dict(json.loads(line.removeprefix("RESULT")))

        yield read
        stdin.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    imported_builder()
    return tmp_path_factory.mktemp("stock")


def property_test(test: Callable[..., None]) -> Callable[..., None]:
    """Makes a test a property test; its fixtures of module scope may be the same for every example."""
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(max_examples=12, deadline=None, suppress_health_check=checks)(test)


@property_test
@given(data=st.data())
def test_engines_and_names_come_out_as_they_went_in(stock: Stock, folder: Path, data: st.DataObject) -> None:
    names = data.draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    engines = [synthetic.plan_header(64) + data.draw(plans()) for _ in names]
    out = folder / "artifact.pt2"
    modules = [
        synthetic.our_module(name, engine_from_buffer(engine)) for name, engine in zip(names, engines, strict=True)
    ]
    synthetic.save(synthetic.compiled_module(modules), out, folder)
    with open_artifact(out) as artifact:
        artifact.check_integrity()
        assert [engine.read() for engine in artifact.engines] == engines
        assert [engine.open().read() for engine in artifact.engines] == engines
        assert [engine.name for engine in artifact.engines] == names
    assert stock(out) == {"engines": [hashlib.sha256(engine).hexdigest() for engine in engines], "names": names}


@property_test
@given(data=st.data())
def test_any_bytes_in_chunks_of_any_length(stock: Stock, folder: Path, data: st.DataObject) -> None:
    """Writes a graph without an artifact, where an engine need not be a plan and its chunks may have any length."""
    count = data.draw(st.integers(1, 5))
    engines = [data.draw(plans()) for _ in range(count)]
    sources = [_in_chunks(engine, data.draw(st.integers(1, 2 * RAW_CHUNK))) for engine in engines]
    out = folder / "program.pt2"
    with open_artifact(_template(folder, count)) as template, ContainerWriter(out) as writer:
        for name in template.container.entries:
            if name == GRAPH_ENTRY:
                written = write_graph(writer, template.skeleton, sources)
            else:
                writer.add(name, template.container.read(name))
    digests = [hashlib.sha256(engine).hexdigest() for engine in engines]
    assert [engine.sha256 for engine in written.engines] == digests
    assert stock(out)["engines"] == digests


def _in_chunks(data: bytes, length: int) -> EngineSource:
    length = max(length, len(data) // 50 + 1)
    return EngineSource(len(data), lambda: (data[at : at + length] for at in range(0, len(data), length)))


def _template(folder: Path, count: int) -> Path:
    """Returns an artifact with ``count`` engines, which are replaced in its graph."""
    path = folder / f"template-{count}.pt2"
    if not path.exists():
        engine = engine_from_buffer(synthetic.plan_header(64))
        modules = [synthetic.our_module(f"engine_{index}", engine) for index in range(count)]
        synthetic.save(synthetic.compiled_module(modules), path, folder)
    return path
