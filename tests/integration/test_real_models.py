"""Well-known models are each built as one engine without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain import open_artifact

pytestmark = [pytest.mark.rtx, pytest.mark.slow, pytest.mark.usefixtures("warm_builds")]

# EfficientNet and MiniLM are built by test_stock_reader.py, a ResNet by test_graphs_upstream.py.
MODELS = ["vit_b_16", "swin_t"]


@pytest.mark.parametrize("name", MODELS)
def test_one_engine_and_nothing_in_pytorch(name: str, tmp_path: Path) -> None:
    from linux_side import build

    out = tmp_path / f"{name}.pt2"
    with build(f"examples.models:{name}", out) as artifact:
        assert len(artifact.engines) == 1 and not artifact.manifest.fallback
        artifact.check_integrity()
    with open_artifact(out) as again:
        assert again.manifest.target.compute_capabilities == ["sm_80", "sm_86", "sm_89", "sm_120", "sm_121"]
