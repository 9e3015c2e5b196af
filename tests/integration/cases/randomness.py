"""Models that draw random numbers, which differ at each call and have the model's distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.integration.cases import Case, Example

SHAPE = (50, 40)


@dataclass(frozen=True)
class Draw:
    """Random numbers that a model draws.

    Attributes:
        draw: draws the numbers; a function of the input, which is ones.
        operator: the operator that stays in PyTorch.
        mean: the mean of the numbers.
        spread: their standard deviation; None where it is not defined.
        shape: their shape.
    """

    draw: Callable[[Tensor], Tensor]
    operator: str
    mean: float
    spread: float | None
    shape: tuple[int, ...] = SHAPE


DRAWS = {
    "randn": Draw(lambda x: torch.randn(SHAPE), "aten.randn.default", 0, 1),
    "rand": Draw(lambda x: torch.rand(SHAPE), "aten.rand.default", 0.5, 12**-0.5),
    "randperm": Draw(lambda x: torch.randperm(2000), "aten.randperm.default", 999.5, 577.35, (2000,)),
    "randint": Draw(lambda x: torch.randint(5, SHAPE), "aten.randint.default", 2, 2**0.5),
    "randint from": Draw(lambda x: torch.randint(3, 8, SHAPE), "aten.randint.low", 5, 2**0.5),
    "rand_like": Draw(torch.rand_like, "aten.rand_like.default", 0.5, 12**-0.5),
    "randn_like": Draw(torch.randn_like, "aten.randn_like.default", 0, 1),
    "randint_like": Draw(lambda x: torch.randint_like(x, 5), "aten.randint_like.default", 2, 2**0.5),
    "bernoulli": Draw(lambda x: torch.bernoulli(x * 0.25), "aten.bernoulli.default", 0.25, 0.433),
    "bernoulli in place": Draw(lambda x: torch.empty(SHAPE).bernoulli_(0.25), "aten.bernoulli.p", 0.25, 0.433),
    "multinomial": Draw(
        lambda x: torch.multinomial(x[0, :5], 2000, replacement=True), "aten.multinomial.default", 2, 2**0.5, (2000,)
    ),
    "normal": Draw(lambda x: torch.normal(x * 3, x * 2), "aten.normal.Tensor_Tensor", 3, 2),
    "normal in place": Draw(lambda x: torch.empty(SHAPE).normal_(3, 2), "aten.normal_functional.default", 3, 2),
    "uniform in place": Draw(lambda x: torch.empty(SHAPE).uniform_(), "aten.rand_like.default", 0.5, 12**-0.5),
    "uniform from": Draw(lambda x: torch.empty(SHAPE).uniform_(2, 4), "aten.rand_like.default", 3, 2 / 12**0.5),
    "exponential": Draw(lambda x: torch.empty(SHAPE).exponential_(2), "aten.exponential.default", 0.5, 0.5),
    "cauchy": Draw(lambda x: torch.empty(SHAPE).cauchy_().clamp(-1, 1), "aten.cauchy.default", 0, None),
    "poisson": Draw(lambda x: torch.poisson(x * 4), "aten.poisson.default", 4, 2),
    "gumbel_softmax": Draw(lambda x: functional.gumbel_softmax(x), "aten.exponential.default", 1 / 40, None),
    "distribution": Draw(
        lambda x: torch.distributions.Normal(x * 3, x * 2, validate_args=False).rsample(),
        "aten.normal_functional.default",
        3,
        2,
    ),
}


def alone(name: str) -> Example:
    """Makes a model that only draws."""
    draw = DRAWS[name].draw
    return Case(lambda _, x: draw(x)).eval(), (torch.ones(SHAPE),)


def between_engines(name: str) -> Example:
    """Makes a model that draws between two linear layers, and also returns the numbers."""
    draw = DRAWS[name].draw

    def forward(parts: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        drawn = draw(parts.first(x) * 0 + 1)
        return drawn, parts.second(drawn.float().flatten()[:40]) + 1

    return Case(forward, first=nn.Linear(40, 40), second=nn.Linear(40, 3)).eval(), (torch.ones(SHAPE),)


def frozen_noise() -> Example:
    """A model with ``randn``, whose converter in Torch-TensorRT draws once, while the engine is built."""
    model = Case(lambda s, x: s.linear(x) + torch.randn(2, 8), linear=nn.Linear(8, 8))
    return model.eval(), (torch.ones(2, 8),)


def live_noise() -> Example:
    """A model whose output differs at every run, and so has no golden output."""
    model = Case(lambda s, x: s.linear(x) + torch.randn_like(x), linear=nn.Linear(8, 8))
    return model.eval(), (torch.ones(2, 8),)
