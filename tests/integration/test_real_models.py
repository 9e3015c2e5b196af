"""A model that people know, built as one engine without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain import open_artifact

pytestmark = [pytest.mark.rtx, pytest.mark.slow, pytest.mark.usefixtures("warm_builds")]


# test_stock_reader.py builds EfficientNet and MiniLM, test_graphs_upstream.py a ResNet, test_model_folders.py a ViT.
def test_swin_is_one_engine_and_nothing_in_pytorch(tmp_path: Path) -> None:
    from linux_side import build

    out = tmp_path / "swin.pt2"
    with build("examples.models:swin_t", out) as artifact:
        assert len(artifact.engines) == 1 and not artifact.manifest.fallback
        artifact.check_integrity()
    with open_artifact(out) as again:
        assert again.manifest.target.compute_capabilities == ["sm_80", "sm_86", "sm_89", "sm_120", "sm_121"]
