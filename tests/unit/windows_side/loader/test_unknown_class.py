"""An artifact of schema 1 whose call names a class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tests.unit.handmade import LEAF, Handmade  # noqa: E402
from toolchain import open_artifact  # noqa: E402
from toolchain.errors import MissingComponentError  # noqa: E402
from windows_side.loader.loading import load_program  # noqa: E402

NODES: dict[str, dict[str, Any]] = {
    "mylib.outputs.Depth": {"type": "mylib.outputs.Depth", "context": '["depth"]', "children_spec": [LEAF]},
    "mylib.Pair": {"type": "collections.namedtuple", "context": "mylib.Pair", "children_spec": [LEAF]},
}


@pytest.mark.parametrize("name", NODES)
def test_the_message_names_the_class_and_its_package(name: str, tmp_path: Path) -> None:
    text = json.dumps([1, NODES[name]])
    path = Handmade(edit_manifest=lambda m: m["call"].update(out_spec=text)).write(tmp_path / "a.pt2")
    with open_artifact(path) as artifact, pytest.raises(MissingComponentError) as caught:
        load_program(artifact, torch.device("cpu"), None)
    message = str(caught.value)
    assert f"outputs are objects of the class {name}" in message
    assert "import mylib before load()" in message
    assert "build the model again" in message
    assert f"torch {torch.__version__}" not in message
