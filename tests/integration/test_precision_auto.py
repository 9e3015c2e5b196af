"""`build --precision auto`: the plan beside the artifact, what manifest and `inspect` state, and using the plan."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Trtcross
from tests.integration.harness import build_here
from tests.integration.warm import warm_builds
from toolchain import open_artifact

torch = pytest.importorskip("torch")

from linux_side import build  # noqa: E402
from tests.models import PartlyFragile, partly_fragile  # noqa: E402

pytestmark = [pytest.mark.rtx, pytest.mark.usefixtures("warm_builds"), pytest.mark.xdist_group("precision auto")]

MODEL = "tests.models:partly_fragile"


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("auto")
    with pytest.MonkeyPatch.context() as patch, warm_builds():
        patch.setenv("TRTCROSS_CACHE", str(folder / "cache"))
        patch.setenv("TRTCROSS_CACHE_SIZE", "1GiB")
        build(MODEL, folder / "chosen.pt2", precision="auto", tolerance=5e-3).close()
        yield folder / "chosen.pt2"


def test_the_plan_is_written_beside_the_artifact_and_gives_the_same_engine(chosen: Path, tmp_path: Path) -> None:
    plan = json.loads(chosen.with_suffix(".precision.json").read_text())
    assert plan["keep_fp32"] == ["fragile"] and plan["reached"] < plan["tolerance"] == 5e-3
    again = build(MODEL, tmp_path / "again.pt2", precision_plan=str(chosen.with_suffix(".precision.json")), cache=False)
    with again, open_artifact(chosen) as first:
        assert [engine.sha256 for engine in again.engines] == [engine.sha256 for engine in first.engines]
        assert again.manifest.golden == first.manifest.golden and first.manifest.golden
        assert first.manifest.golden.tolerance["float32"].relative_l2 == 5e-3
    assert not (tmp_path / "again.precision.json").exists()


def test_a_build_from_the_cache_writes_its_plan_too(chosen: Path, tmp_path: Path) -> None:
    with build(MODEL, tmp_path / "second.pt2", precision="auto", tolerance=5e-3) as second:
        assert second.manifest.build.from_cache
    plan = chosen.with_suffix(".precision.json").read_text()
    assert (tmp_path / "second.precision.json").read_text() == plan


def test_inspect_says_what_computes_in_halves_and_what_it_costs(chosen: Path, warm_trtcross: Trtcross) -> None:
    text = warm_trtcross("inspect", chosen).stdout
    assert "operators in fp16" in text and "kept beyond the rules: fragile" in text and "output 0 loses" in text
    precision = json.loads(warm_trtcross("inspect", chosen, "--json").stdout)["manifest"]["precision"]
    assert precision["halves"] == "fp16" and 0 < precision["errors"][0] < 5e-3


def test_what_auto_chose_is_right_in_the_network_and_what_the_rules_make_is_not(tmp_path: Path) -> None:
    model, (x,) = partly_fragile()
    with torch.no_grad():
        want = PartlyFragile.forward(model, x)
    for options, holds in (({"precision": "auto", "tolerance": 5e-3}, True), ({"precision": "fp16"}, False)):
        got = build_here(model, (x,), folder=tmp_path, **options).run_networks(x)
        assert bool((got - want).norm() / want.norm() < 5e-3) is holds


def test_halves_that_lose_too_much_are_reported(tmp_path: Path, warm_trtcross: Trtcross) -> None:
    result = warm_trtcross("build", MODEL, "-o", tmp_path / "out.pt2", "--precision", "fp16")
    assert result.returncode == 0 and "fp16 alone makes output 0 differ" in result.stdout
    assert "fp16 alone makes" in warm_trtcross("inspect", tmp_path / "out.pt2").stdout
