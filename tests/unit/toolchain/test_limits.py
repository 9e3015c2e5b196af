"""A writer checks every limit of the readers and names it, and files within the limits are read in little memory."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.attacks import written_graph
from tests.conftest import ROOT
from tests.unit.foreign import Foreign
from tests.unit.handmade import Handmade, golden
from toolchain import limits, open_artifact
from toolchain.checker import writing
from toolchain.checker.structure import check_structure
from toolchain.checker.writing import require_plain_graph, require_readable_golden, require_readable_graph
from toolchain.container.entry_names import GRAPH_ENTRY
from toolchain.container.writer import ContainerWriter
from toolchain.convert import GoldenData, convert_artifact
from toolchain.errors import BuildFailedError
from toolchain.graph.document import dump_graph
from toolchain.limits import JsonLimit, Limit
from toolchain.manifest.models import Golden
from toolchain.targets import Platform

MEMORY = 200 * 2**20


def graph(nodes: int = 0, **members: Any) -> dict[str, Any]:
    """Returns a graph of operators that stay in PyTorch, as torch writes it."""
    document: dict[str, Any] = json.loads(json.dumps(Handmade().graph))
    tensor = {"dtype": 7, "sizes": [{"as_int": 8}, {"as_int": 1000}], "requires_grad": False, "device": {
        "type": "cuda", "index": 0}, "strides": [{"as_int": 1000}, {"as_int": 1}], "storage_offset": {"as_int": 0},
        "layout": 7}  # fmt: skip
    module = document["graph_module"]["graph"]
    for index in range(nodes):
        module["nodes"].append({"target": "torch.ops.aten.add.Tensor", "inputs": [
            {"name": "self", "arg": {"as_tensor": {"name": f"layer_add_{index}"}}, "kind": 1},
            {"name": "other", "arg": {"as_int": index}, "kind": 1}], "outputs": [
            {"as_tensor": {"name": f"layer_add_{index + 1}"}}], "metadata": {}, "name": f"layer_add_{index + 1}",
            "is_hop_single_tensor_return": None})  # fmt: skip
        module["tensor_values"][f"layer_add_{index + 1}"] = tensor
    return {**document, **members}


def small(monkeypatch: pytest.MonkeyPatch, limit: Limit | JsonLimit, most: int) -> None:
    """Lowers a limit in every module that has imported it by name."""
    [name] = [name for name, value in vars(limits).items() if value is limit]
    lower: Limit | JsonLimit = replace(limit, most=most) if isinstance(limit, Limit) else replace(limit, size=most)
    for module in [module for module in list(sys.modules.values()) if getattr(module, name, None) is limit]:
        monkeypatch.setattr(module, name, lower)


GRAPHS: dict[str, tuple[Limit | JsonLimit, int, dict[str, Any]]] = {
    "the graph has .* bytes, and at most 32 are": (limits.GRAPH, 32, graph()),
    "the graph has 11 pieces, and at most 10 are": (limits.GRAPH_PIECES, 10, graph(nodes=10)),
    "a piece of the graph has 2003 characters, and at most 2000": (limits.GRAPH_PIECE, 2000, graph(x="x" * 2001)),
    "the graph has .* different values, and at most 1000": (limits.GRAPH_VALUES, 1000, graph(nodes=50)),
    "the graph has .* different objects, and at most 300": (limits.GRAPH_OBJECTS, 300, graph(nodes=50)),
    "the graph has 3 different operators, and at most 2": (
        limits.OPERATORS,
        2,
        graph(x=[{"target": text} for text in "abc"]),
    ),
    "the graph has .* characters in its different symbolic sizes, and at most 100": (
        limits.EXPRESSIONS,
        100,
        graph(x=[{"expr_str": f"s{i}+{10**6}"} for i in range(20)]),
    ),
    "the graph has .* characters in its different call signatures, and at most 300": (
        limits.TREESPECS,
        300,
        graph(x=[{"in_spec": str(i)} for i in range(4)]),
    ),
    "an engine's metadata has .* characters, and at most 50": (limits.METADATA, 50, graph()),
}


@pytest.mark.parametrize("words", GRAPHS)
def test_a_graph_beyond_a_limit_is_not_written(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    limit, most, document = GRAPHS[words]
    require_readable_graph(dump_graph(document))
    small(monkeypatch, limit, most)
    with pytest.raises(BuildFailedError, match=f"no reader would take the artifact: {words}") as error:
        require_readable_graph(dump_graph(document))
    assert error.value.remedy == limit.remedy


def test_a_symbolic_size_longer_than_a_reader_takes_is_not_written() -> None:
    document = graph(x={"expr_str": "s0" + "+1" * (limits.EXPRESSION.most // 2)})
    with pytest.raises(BuildFailedError, match="a size is not a plain expression"):
        require_plain_graph(require_readable_graph(dump_graph(document)))


def _entries(count: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        with ContainerWriter(folder / "b.pt2") as writer:
            for index in range(count):
                writer.add(f"data/weights/weight_{index}", b"")

    return write


def _named(folder: Path) -> None:
    with ContainerWriter(folder / "b.pt2") as writer:
        writer.add("data/" + "x" * 100, b"")


def _converted(folder: Path) -> None:
    with open_artifact(Handmade(golden=None).write(folder / "a.pt2")) as artifact:
        made = GoldenData(golden(), Golden(samples=1, tolerance={}))
        convert_artifact(artifact, folder / "b.pt2", Platform.LINUX_X86_64, golden=made)


def _converted_foreign(folder: Path) -> None:
    """Converts a foreign file whose list of tensors grows: a character there becomes an escape of six in ours."""
    config = json.dumps({"config": {}, "x": "\u00e9" * 100}, ensure_ascii=False).encode()
    Foreign(entries={"data/constants/model_constants_config.json": config}).write(folder / "a.pt2")
    with open_artifact(folder / "a.pt2") as artifact:
        convert_artifact(artifact, folder / "b.pt2", Platform.LINUX_X86_64)


WRITERS: dict[str, tuple[Limit | JsonLimit, int, Callable[[Path], None]]] = {
    "the archive has 4 entries, and at most 3 are read": (limits.ENTRIES, 3, _entries(4)),
    r"the archive's directory has \d+ bytes, and at most 200 are read": (limits.DIRECTORY, 200, _entries(4)),
    "the entry name .* has 105 bytes, and at most 50 are read": (limits.ENTRY_NAME, 50, _named),
    r"the header of the golden I/O has \d+ bytes, and at most 20 are read": (limits.GOLDEN_HEADER, 20, _converted),
    r"a list of tensors has \d+ bytes, and at most 300 are read": (limits.TENSOR_LIST, 300, _converted_foreign),
}


@pytest.mark.parametrize("words", WRITERS)
def test_what_is_beyond_a_limit_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    limit, most, write = WRITERS[words]
    write(tmp_path)
    (tmp_path / "b.pt2").unlink()
    small(monkeypatch, limit, most)
    with pytest.raises(BuildFailedError, match=f"no reader would take the artifact: {words}") as error:
        write(tmp_path)
    assert error.value.remedy and not (tmp_path / "b.pt2").exists()


def test_a_manifest_longer_than_a_reader_takes_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_artifact(Handmade().write(tmp_path / "a.pt2")) as artifact:
        small(monkeypatch, limits.MANIFEST, 500)
        with pytest.raises(BuildFailedError, match=r"the manifest has \d+ bytes, and at most 500 are read"):
            convert_artifact(artifact, tmp_path / "b.pt2", Platform.LINUX_X86_64)


def test_a_graph_that_grows_beyond_a_limit_is_not_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "GRAPH", replace(limits.GRAPH, size=90))
    with pytest.raises(BuildFailedError, match=r"the graph has \d+ bytes, and at most 90 are read"):
        _converted_foreign(tmp_path)


def test_golden_that_is_short_is_taken() -> None:
    require_readable_golden(golden())


_CHECK = """
import sys
from toolchain import open_artifact
from toolchain.checker.structure import check_structure
with open_artifact(sys.argv[1]) as artifact:
    check_structure(artifact)
    print(len(artifact.skeleton))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.slow
def test_a_graph_of_18_mib_is_written_and_read_in_little_memory(tmp_path: Path) -> None:
    """The graph has 37,000 operators. An earlier release wrote it, and then reported it as damaged."""
    text = dump_graph(graph(nodes=37_000))
    assert len(text) > 17.8 * 2**20
    require_readable_graph(text)
    path = Handmade(graph=json.loads(text)).write(tmp_path / "a.pt2")
    done = subprocess.run([sys.executable, "-c", _CHECK, path], cwd=ROOT, capture_output=True, text=True, check=True)
    size, peak = done.stdout.split()
    assert int(size) == len(text)
    assert int(peak) * 1024 < MEMORY


def test_a_graph_that_is_not_ascii_is_read(tmp_path: Path) -> None:
    document = graph(x="\U0001f4a3" * 1000)
    text = json.dumps(document, ensure_ascii=False).encode()
    path = tmp_path / "a.pt2"
    plain = Handmade(engines=[]).graph or {}
    written_graph(path, json.dumps({**plain, "x": "\U0001f4a3"}, ensure_ascii=False).encode())
    with open_artifact(path) as artifact:
        check_structure(artifact)
        assert hashlib.sha256(artifact.skeleton).hexdigest() == artifact.manifest.files[GRAPH_ENTRY].sha256
    require_readable_graph(text)
