"""Random numbers are drawn in PyTorch at each call, wherever a model draws them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.integration.cases import Case, randomness
from tests.integration.cases.randomness import DRAWS, Draw
from tests.integration.harness import Built, build_here

pytestmark = pytest.mark.rtx

X = torch.ones(randomness.SHAPE)


def build(example: tuple[torch.nn.Module, tuple[torch.Tensor, ...]], folder: Path) -> Built:
    return build_here(*example, folder=folder, allow_no_engine=True)


def assert_drawn(draw: Draw, first: torch.Tensor, second: torch.Tensor, built: Built) -> None:
    assert first.shape == second.shape == draw.shape
    assert not torch.equal(first, second)
    values = torch.cat([first.flatten(), second.flatten()]).double()
    spread = values.std().item() if draw.spread is None else draw.spread
    assert abs(values.mean().item() - draw.mean) <= max(0.1 * spread, 1e-9)
    assert abs(values.std().item() - spread) <= 0.1 * spread
    manifest = built.artifact.manifest
    assert draw.operator in [operator.operator for operator in manifest.fallback]
    assert all(operator.device == "cuda:0" for operator in manifest.fallback)


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_between_engines_is_new_at_each_call(tmp_path: Path, name: str) -> None:
    built = build(randomness.between_engines(name), tmp_path)
    (first, after), (second, after_second) = built.run(X), built.run(X)
    assert_drawn(DRAWS[name], first, second, built)
    assert built.artifact.engines and not torch.equal(after, after_second)


@pytest.mark.parametrize("name", ["randn", "randperm", "bernoulli in place", "uniform from", "normal in place"])
def test_a_draw_alone_is_new_at_each_call(tmp_path: Path, name: str) -> None:
    built = build(randomness.alone(name), tmp_path)
    assert_drawn(DRAWS[name], built.run(X), built.run(X), built)


@pytest.mark.parametrize("name", ["frozen_noise", "live_noise"])
def test_noise_is_not_frozen_and_has_no_golden_output(tmp_path: Path, name: str) -> None:
    built = build(getattr(randomness, name)(), tmp_path)
    first, second = built.run(torch.ones(2, 8)), built.run(torch.ones(2, 8))
    assert not torch.equal(first, second)
    assert built.artifact.engines and built.artifact.manifest.golden is None
    # The harness runs an engine's partition in PyTorch, which would draw too, so no engine may have the operator.
    assert [item.operator.split(".")[1][:5] for item in built.artifact.manifest.fallback] == ["randn"]
    (warning,) = built.artifact.manifest.settings["golden_warnings"]
    assert "no golden I/O" in warning and "draws random numbers: aten.randn" in warning


def test_a_seed_before_the_call_makes_it_repeatable(tmp_path: Path) -> None:
    built = build(randomness.between_engines("randn"), tmp_path)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(built.run(X)[0])
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_numbers_that_were_drawn_before_the_call_are_constants(tmp_path: Path) -> None:
    noise = torch.randn(50, 40)
    built = build((Case(lambda s, x: x + s.noise, noise=noise).eval(), (X,)), tmp_path)
    assert torch.equal(built.run(X), X + noise) and not built.artifact.manifest.fallback


@pytest.mark.parametrize("name", ["randn", "randint_like", "bernoulli in place", "uniform from"])
def test_random_operators_get_the_device_of_load_only(tmp_path: Path, name: str) -> None:
    """``load`` writes its device wherever the graph names one; nothing may be left to PyTorch's default."""
    built = build(randomness.between_engines(name), tmp_path)
    nodes = built.artifact.graph()["graph_module"]["graph"]["nodes"]
    (drawing,) = [node for node in nodes if DRAWS[name].operator.replace(".", " ") in node["target"].replace(".", " ")]
    devices = [value["arg"]["as_device"] for value in drawing["inputs"] if "as_device" in value["arg"]]
    given = [value for value in drawing["inputs"] if "as_tensor" in value["arg"]]
    assert devices or given
    assert '"cpu"' not in json.dumps(nodes)


def test_memory_that_is_not_initialized_is_not_baked_in(tmp_path: Path) -> None:
    """Constant folding once kept the content of the builder's memory."""
    built = build(randomness.alone("bernoulli in place"), tmp_path)
    values = [*built.loaded().constants.values(), *built.loaded().state_dict.values()]
    assert values and not any(value.any() for value in values if isinstance(value, torch.Tensor))
