"""``build --many``: the combinations of options, and the names of their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from linux_side.driver.variants import variants
from linux_side.options import BuildOptions
from toolchain.errors import UsageError


def test_each_combination_has_its_options_and_its_name() -> None:
    found = variants(["precision=fp32,fp16", "gpu=sm_86+sm_89,sm_120"], {"golden": 2}, "out/m-{precision}-{gpu}.pt2")
    assert list(found) == [
        Path("out/m-fp32-sm_86+sm_89.pt2"),
        Path("out/m-fp32-sm_120.pt2"),
        Path("out/m-fp16-sm_86+sm_89.pt2"),
        Path("out/m-fp16-sm_120.pt2"),
    ]
    assert found[Path("out/m-fp16-sm_86+sm_89.pt2")] == BuildOptions(
        precision="fp16", gpus=["sm_86", "sm_89"], golden=2
    )


def test_sizes_have_commas_of_their_own_and_names_that_windows_takes() -> None:
    found = variants(["dynamic=x.0=1:1:1,2:4:8+y.0=1:2:4", "dynamic=x.0=1:2:4"], {}, "m-{dynamic}.pt2")
    assert list(found) == [Path("m-x.0=1_1_1_2_4_8+y.0=1_2_4.pt2"), Path("m-x.0=1_2_4.pt2")]
    assert [len(options.dynamic) for options in found.values()] == [2, 1]


@pytest.mark.parametrize(
    ("texts", "out", "problem", "remedy"),
    [
        (["precision=fp32,fp16"], "m.pt2", "two builds would be written to m.pt2", "put {precision}"),
        (["precision=fp32,fp32"], "m-{precision}.pt2", "two builds would be written", "each value once"),
        (["precision=fp32"], "m-{target}.pt2", "target does not vary", "{precision}"),
        (["precision=fp32"], "m-{nonsense}.pt2", "'nonsense' cannot vary", "precision"),
        (["golden=1,2"], "m-{golden}.pt2", "'golden' cannot vary", "dynamic"),
        (["precision"], "m.pt2", "not an option and its values", "precision=fp32,fp16"),
        (["precision=fp64"], "m.pt2", "precision cannot be 'fp64'", "fp16"),
        (["precision=fp32"], "m-{precision.pt2", "cannot be filled in", ""),
    ],
)
def test_wrong_variants_are_refused_before_any_work(texts: list[str], out: str, problem: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        variants(texts, {}, out)
    assert problem in caught.value.problem
    assert remedy in str(caught.value.remedy or "")
