"""Reads ``rules.toml``, the rules that state for each operator whether it computes in halves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import torch

from toolchain.io.toml import parse_toml

RULES_VERSION = 1


@dataclass(frozen=True)
class Rules:
    """The rules. Operators have names without overload, such as ``aten.sum``.

    Attributes:
        half: operators that compute in halves.
        tf32: those of them whose factors are rounded to TF32 if they stay in fp32.
        fp32: operators that stay in fp32, each with the reason.
        prefixes: prefixes of names of operators that stay in fp32, each with the reason.
        coordinates: for each operator, the positions of arguments that are coordinates.
        arithmetic: operators that follow their surroundings, and stay in fp32 if only fp32 operators read their result.
        follow: other operators that follow their surroundings.
        views: operators that only change the shape or the order of values.
    """

    half: frozenset[str]
    tf32: frozenset[str]
    fp32: Mapping[str, str]
    prefixes: Mapping[str, str]
    coordinates: Mapping[str, tuple[int, ...]]
    arithmetic: frozenset[str]
    follow: frozenset[str]
    views: frozenset[str]

    def reason_for_fp32(self, operator: str) -> str | None:
        """Returns why an operator stays in fp32; None if no table of the rules keeps it there."""
        reason = self.fp32.get(operator)
        return reason or next((why for prefix, why in self.prefixes.items() if operator.startswith(prefix)), None)


@cache
def default_rules() -> Rules:
    """Returns the rules of this package. A build's cache key covers their file, as all files of the package."""
    return parse_rules(resources.files(__package__).joinpath("rules.toml").read_text("utf-8"))


def parse_rules(text: str) -> Rules:
    """Reads rules from TOML.

    Raises:
        ValueError: the version is not ``RULES_VERSION``, or an operator is in two tables.
    """
    document = parse_toml(text)
    if document["version"] != RULES_VERSION:
        raise ValueError(f"the rules are of version {document['version']}, not {RULES_VERSION}")
    tables = document["fp32"]
    rules = Rules(
        half=frozenset(document["half"]["operators"]),
        tf32=frozenset(document["tf32"]["operators"]),
        fp32={name: table["reason"] for table in tables for name in table["operators"]},
        prefixes={prefix: table["reason"] for table in tables for prefix in table.get("prefixes", ())},
        coordinates={name: tuple(positions) for name, positions in document["coordinates"].items()},
        arithmetic=frozenset(document["arithmetic"]["operators"]),
        follow=frozenset(document["follow"]["operators"]),
        views=frozenset(document["views"]["operators"]),
    )
    listed = [name for table in tables for name in table["operators"]]
    names = [*rules.half, *listed, *rules.arithmetic, *rules.follow, *rules.views]
    if other := sorted(rules.tf32 - rules.half):
        raise ValueError(f"TF32 for what does not compute in halves: {', '.join(other)}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two rules for {', '.join(twice)}")
    return rules


def operator_name(target: object) -> str:
    """Returns ``aten.sum`` for ``aten.sum.dim_IntList``, and an empty string for anything but an operator of torch."""
    if isinstance(target, torch._ops.OpOverload):
        return f"{target.namespace}.{target._opname}"
    return ""
