"""Factories may return a model and its example in many forms."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from linux_side.frontend.factory_result import read_result
from linux_side.frontend.original import Original
from toolchain.errors import BuildFailedError, TrtcrossError, UsageError


class Named(torch.nn.Module):
    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return ids if mask is None else ids * mask


class TakesDict(torch.nn.Module):
    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["image"] + 1


class Part(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)


X = torch.arange(4.0)


@pytest.mark.parametrize("example", [{"ids": X, "mask": X}, UserDict(ids=X, mask=X), {"mask": X, "ids": X}])
def test_a_dict_of_the_forwards_arguments_is_keywords(example: Any) -> None:
    _, args, kwargs = read_result((Named(), example), "m:f")
    assert args == () and set(kwargs) == {"ids", "mask"}


def test_a_dict_that_is_itself_the_argument_stays_one() -> None:
    module, args, kwargs = read_result((TakesDict(), {"image": X}), "m:f")
    assert kwargs == {} and torch.equal(module(*args), X + 1)


def test_keywords_may_come_apart_and_one_tensor_alone() -> None:
    assert set(read_result((Named(), {"ids": X}, {"mask": X}), "m:f")[2]) == {"ids", "mask"}
    assert len(read_result((Named(), X), "m:f")[1]) == 1


def test_an_example_on_meta_gets_values_the_same_each_time() -> None:
    def example() -> dict[str, Any]:
        return {"ids": torch.empty(2, 5, dtype=torch.int64, device="meta"), "mask": torch.empty(3, device="meta")}

    found, again = (read_result((Named(), example()), "m:f")[2] for _ in range(2))
    assert (
        found["ids"].dtype == torch.int64
        and found["ids"].shape == (2, 5)
        and set(found["ids"].flatten().tolist()) <= {0, 1}
    )
    assert found["mask"].std() > 0 and all(torch.equal(found[name], again[name]) for name in found)


def test_what_torch_compile_wrapped_is_unwrapped_wherever_it_is() -> None:
    inner = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.compile(Part()))
    module, *_ = read_result((torch.compile(torch.nn.ModuleDict({"a": torch.compile(inner)})), (X,)), "m:f")
    assert list(module.state_dict()) == ["a.0.weight", "a.0.bias"] and type(module.a[1]) is Part


def test_a_compiled_function_runs_as_it_was_written() -> None:
    def fail(*_: Any) -> Callable[..., Any]:
        pytest.fail("it was compiled")

    module = torch.nn.Linear(4, 4).eval()
    module.forward = torch.compile(module.forward, backend=fail)
    assert Original(module, (X,), {}).outputs[0] is not None


REFUSED: dict[str, tuple[Callable[[], Any], type[TrtcrossError], str]] = {
    "scripted": (
        lambda: (torch.jit.script(Part()), X),
        BuildFailedError,
        "torch.export takes no TorchScript, and it is",
    ),
    "a scripted part": (
        lambda: (torch.nn.Sequential(Part(), torch.jit.script(Part())), X),
        BuildFailedError,
        "its part '1' is a scripted or traced module",
    ),
    "weights on meta": (lambda: (torch.nn.Linear(2, 2, device="meta"), X), BuildFailedError, "weight, bias"),
    "a dict": (lambda: {"model": Part()}, UsageError, "it returned a dict"),
    "no example": (Part, UsageError, "it returned a Part"),
    "four things": (lambda: (Part(), X, {}, 1), UsageError, "it returned (Part, Tensor, dict, int)"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_built_is_refused_in_a_sentence(name: str) -> None:
    make, kind, words = REFUSED[name]
    with pytest.raises(kind) as caught:
        read_result(make(), "m:f")
    assert words in caught.value.problem and caught.value.remedy and "\n" not in caught.value.problem


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU HERE: a model on a GPU was not tried")
def test_a_model_and_example_on_a_gpu_come_to_the_cpu() -> None:
    module, _, kwargs = read_result((torch.nn.Linear(4, 4).cuda(), {"input": X.cuda()}), "m:f")
    assert {tensor.device.type for tensor in (*module.parameters(), *kwargs.values())} == {"cpu"}
