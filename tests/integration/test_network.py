"""The interpreter of TensorRT networks does what NVIDIA's documentation of each layer states."""

from __future__ import annotations

from typing import Any

import pytest
import tensorrt_rtx as trt
import torch

from tests.integration.harness import network_call
from tests.integration.network import NetworkError, UnknownLayerError, record
from tests.integration.network.exact import exact
from tests.integration.network.hand_made import CASES, HandMade, ramp
from tests.integration.network.layers import READERS
from toolchain.engine.info import AliasedIO, EngineInfo, RuntimeDevice
from toolchain.targets import AMPERE

pytestmark = pytest.mark.rtx


def made(name: str) -> HandMade:
    net = HandMade()
    CASES[name](net)
    return net


@pytest.mark.parametrize("name", CASES)
def test_layers_give_what_their_documentation_says(name: str) -> None:
    net = made(name)
    network = record(net.network)
    got = network.run(net.inputs)
    assert got.keys() == net.expected.keys()
    for output, expected in net.expected.items():
        torch.testing.assert_close(got[output], expected, equal_nan=True)


# TensorRT-RTX 1.6 has no implementation of these layers.
REFUSED = {"indices of what is not zero"}


@pytest.mark.parametrize("name", CASES)
def test_tensorrt_takes_the_networks_that_are_made_by_hand(name: str) -> None:
    assert (made(name).plan() is None) == (name in REFUSED)


def test_every_layer_that_is_known_is_tested() -> None:
    nets = [made(name) for name in CASES]
    kinds = {layer.kind for net in nets for layer in record(net.network).layers}
    assert set(READERS) == kinds


def test_a_layer_that_is_not_known_is_an_error() -> None:
    net = HandMade()
    layer = net.network.add_lrn(net.input(ramp(1, 3, 4, 4)), 3, 1.0, 1.0, 1.0)
    layer.name = "the new one"
    net.output(layer.get_output(0), ramp(1, 3, 4, 4))
    with pytest.raises(UnknownLayerError, match="layer 'the new one' is a LRN"):
        record(net.network)


def test_a_setting_that_is_not_known_is_an_error() -> None:
    net = HandMade()
    net.output(net.network.add_fill((4,), trt.FillOperation.RANDOM_UNIFORM).get_output(0), ramp(4))
    with pytest.raises(UnknownLayerError, match="RANDOM_UNIFORM"):
        record(net.network)


def forbidden(name: str) -> tuple[HandMade, dict[str, torch.Tensor], str]:
    net = HandMade()
    if name == "a slice out of bounds":
        x = net.input(ramp(4), dynamic=True)
        net.output(net.network.add_slice(x, (2,), (3,), (1,)).get_output(0), ramp(3))
        return net, {"input0": ramp(4)}, r"reads \[4\] of a dimension of 4"
    if name == "a negative index into what varies":
        x = net.input(ramp(4), dynamic=True)
        net.output(net.network.add_gather(x, net.constant([-1]), 0).get_output(0), ramp(1))
        return net, {"input0": ramp(4)}, "negative index"
    if name == "two updates of one element":
        parts = [net.input(part) for part in (ramp(4), torch.tensor([1, 1]), ramp(2))]
        net.output(net.network.add_scatter(*parts, trt.ScatterMode.ELEMENT).get_output(0), ramp(4))
        return net, net.inputs, "two updates"
    if name == "an assertion that fails":
        CASES["assertion"](net)
        return net, {"input0": ramp(2, 3)}, "its assertion fails: a square"
    parts = [net.input(part, dynamic=True) for part in (ramp(2, 3), ramp(2, 3))]
    net.output(net.network.add_elementwise(*parts, trt.ElementWiseOperation.SUM).get_output(0), ramp(2, 3))
    return net, {"input0": ramp(2, 3), "input1": ramp(2, 2)}, "operands of shapes"


@pytest.mark.parametrize(
    "name",
    [
        "a slice out of bounds",
        "a negative index into what varies",
        "two updates of one element",
        "an assertion that fails",
        "sizes that differ",
    ],
)
def test_what_the_documentation_leaves_undefined_is_an_error(name: str) -> None:
    net, inputs, words = forbidden(name)
    with pytest.raises(NetworkError, match=words):
        record(net.network).run(inputs)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (ramp(2, 3).half(), "float16, and TensorRT says torch.float32"),
        (ramp(3, 3), r"has shape \(3, 3\), and TensorRT says \(2, 3\)"),
    ],
)
def test_inputs_are_checked(value: torch.Tensor, words: str) -> None:
    net = HandMade()
    net.output(net.network.add_identity(net.input(ramp(2, 3))).get_output(0), ramp(2, 3))
    with pytest.raises(NetworkError, match=words):
        record(net.network).run({"input0": value})


def test_an_exact_network_rounds_nothing_on_the_way() -> None:
    net = HandMade()
    x = torch.tensor([1.0, 1.0 + 2**-12, 3.0])
    half = net.network.add_cast(net.input(x), trt.float16).get_output(0)
    double = net.network.add_elementwise(half, half, trt.ElementWiseOperation.SUM).get_output(0)
    net.output(net.network.add_cast(double, trt.float32).get_output(0), x)
    network = record(net.network)
    assert torch.equal(network.run(net.inputs)["output0"], torch.tensor([2.0, 2.0, 6.0]))
    assert torch.equal(exact(network).run(net.inputs)["output0"], 2 * x)


def test_an_exact_network_takes_halves_as_fp32_and_keeps_loops() -> None:
    for name, case in CASES.items():
        net = HandMade()
        case(net)
        network = exact(record(net.network))
        assert all(slot.dtype not in (torch.float16, torch.bfloat16) for slot in network.slots), name
        if all(value.dtype not in (torch.float16, torch.bfloat16) for value in net.inputs.values()):
            assert network.run(net.inputs).keys() == net.expected.keys()


def test_a_recording_outlives_the_network_and_its_weights() -> None:
    net = HandMade()
    weights: Any = torch.full((3,), 2.0, dtype=torch.bfloat16)
    net.output(net.constant(weights), weights.clone())
    network = record(net.network)
    weights.zero_()
    del net
    assert network.run({})["output0"].tolist() == [2.0, 2.0, 2.0]


def test_a_network_does_not_write_to_its_inputs_and_an_engine_does_where_it_says_so() -> None:
    net = made("cache update")
    network, before = record(net.network), net.inputs["input0"].clone()
    network.run(net.inputs)
    assert torch.equal(net.inputs["input0"], before)
    info = EngineInfo(
        name="engine",
        device=RuntimeDevice(0, AMPERE, 0, ""),
        input_names=tuple(net.inputs),
        output_names=("output0",),
        hardware_compatible=True,
        metadata="",
        target_platform="linux_x86_64",
        aliased_io=(AliasedIO("output0", "input0", "kv_cache_update"),),
    )
    (output,) = network_call(network, info)(*net.inputs.values())
    assert output is net.inputs["input0"] and torch.equal(output, net.expected["output0"])
