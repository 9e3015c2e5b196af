"""Models with a part in training mode, or with a call of an operator's training form in any mode."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.integration.cases import Case, Example

X = torch.linspace(-1, 1, 32).reshape(4, 8)


def dropout_on() -> Example:
    model = Case(lambda s, x: s.drop(s.linear(x)), linear=nn.Linear(8, 8), drop=nn.Dropout(0.5))
    return model.train(), (X,)


def batch_norm_on() -> Example:
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).train(), (X,)


def one_part_on() -> Example:
    """A model with one inner part in training mode, next to a part that computes the same in both modes."""
    inner = Case(lambda s, x: s.drop(s.linear(x)), linear=nn.Linear(8, 8), drop=nn.Dropout(0.5))
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.ReLU(), inner)).eval()
    inner.drop.train()
    return model, (X,)


def replaced_head() -> Example:
    """A model that got a new head after it was put into eval mode."""
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()
    model[2] = nn.Linear(8, 3)
    return model, (X,)


def many_parts_on() -> Example:
    return nn.Sequential(*(nn.Linear(8, 8) for _ in range(9))).train(), (X,)


def dropout_in_eval() -> Example:
    model = Case(
        lambda s, x: functional.dropout(s.drop(s.linear(x)), 0.5, s.training), linear=nn.Linear(8, 8), drop=nn.Dropout()
    )
    return model.eval(), (X,)


def dropout_of_nothing() -> Example:
    return Case(lambda s, x: functional.dropout(s.linear(x), 0.0, True), linear=nn.Linear(8, 8)).eval(), (X,)


def batch_norm_of_the_batch() -> Example:
    """A batch norm without statistics of its own, which normalizes by its input's in eval mode too."""
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, track_running_stats=False)).eval(), (X,)


def attention() -> Example:
    """Attention, which PyTorch tags as random because of its dropout, although that is off."""
    model = Case(lambda s, x: functional.scaled_dot_product_attention(*s.linear(x).reshape(1, 1, 4, 24).chunk(3, -1)))
    model.linear = nn.Linear(8, 24)
    return model.eval(), (X,)


def _of(function: object) -> Example:
    return Case(function, linear=nn.Linear(8, 8)).eval(), (X,)


# Operators that a model in eval mode calls in their training form, each with its caller.
TRAINING_FORMS = {
    "dropout": ("aten.dropout.default", lambda s, x: functional.dropout(s.linear(x), 0.5, training=True)),
    "native dropout": ("aten.native_dropout.default", lambda s, x: torch.native_dropout(s.linear(x), 0.5, True)[0]),
    "alpha dropout": (
        "aten.alpha_dropout.default",
        lambda s, x: functional.alpha_dropout(s.linear(x), 0.5, training=True),
    ),
    "channels": ("aten.feature_dropout.default", lambda s, x: functional.dropout1d(s.linear(x), 0.5, training=True)),
    "rrelu": ("aten.rrelu.default", lambda s, x: functional.rrelu(s.linear(x), training=True)),
    "batch norm": (
        "aten.batch_norm.default",
        lambda s, x: functional.batch_norm(s.linear(x), torch.zeros(8), torch.ones(8), training=True),
    ),
    "attention": (
        "aten.scaled_dot_product_attention.default",
        lambda s, x: functional.scaled_dot_product_attention(s.linear(x)[None], x[None], x[None], dropout_p=0.5),
    ),
}


def training_form(name: str) -> Example:
    return _of(TRAINING_FORMS[name][1])
