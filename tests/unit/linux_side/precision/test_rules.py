"""The rules of precision are well-formed, and name operators that torch has."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from linux_side.precision.rules import default_rules, parse_rules  # noqa: E402

TEXT = """
version = 1
[half]
operators = ["aten.linear"]
[tf32]
operators = ["aten.linear"]
[[fp32]]
reason = "a norm"
operators = ["aten.layer_norm"]
[coordinates]
[arithmetic]
operators = ["aten.add"]
[follow]
operators = ["aten.relu"]
[views]
operators = ["aten.view"]
"""


def test_every_operator_of_the_rules_exists() -> None:
    rules = default_rules()
    for name in [*rules.half, *rules.fp32, *rules.coordinates, *rules.arithmetic, *rules.follow, *rules.views]:
        if name.startswith("aten."):  # others are known where their library is imported
            assert hasattr(torch.ops.aten, name.removeprefix("aten.")), name
    known = {name.replace("::", ".") for name in torch._C._dispatch_get_all_op_names()}
    assert all(any(name.startswith(prefix) for name in known) for prefix in rules.prefixes)


def test_an_operator_in_two_tables_is_refused() -> None:
    assert parse_rules(TEXT).reason_for_fp32("aten.layer_norm") == "a norm"
    with pytest.raises(ValueError, match=r"two rules for aten\.add"):
        parse_rules(TEXT.replace('"aten.view"', '"aten.view", "aten.add"'))


def test_rules_of_another_version_are_refused() -> None:
    with pytest.raises(ValueError, match="version 2"):
        parse_rules(TEXT.replace("version = 1", "version = 2"))
