"""The rules of precision as data: ``rules.toml``, which says for each operator whether it computes in halves."""

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
    """Operators by what becomes of them; names without overload, such as ``aten.sum``.

    Attributes:
        half: operators that compute in halves.
        tf32: those of them whose factors are rounded to TF32 where they stay in fp32.
        fp32: operators that stay in fp32, each with the reason.
        prefixes: beginnings of names of operators that stay in fp32, each with the reason.
        coordinates: positions of arguments that are coordinates.
        arithmetic: operators that stay in fp32 where their result goes to fp32 operators alone.
        follow: operators that follow their surroundings.
        views: operators that only look at values in another shape or order.
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
        """Why an operator stays in fp32, or None where no table says so."""
        reason = self.fp32.get(operator)
        return reason or next((why for prefix, why in self.prefixes.items() if operator.startswith(prefix)), None)


@cache
def default_rules() -> Rules:
    """The rules that are shipped; the cache key of a build holds their file's digest, as that of all our files."""
    return parse_rules(resources.files(__package__).joinpath("rules.toml").read_text("utf-8"))


def parse_rules(text: str) -> Rules:
    """Reads rules.

    Raises:
        ValueError: another version, or an operator in two tables.
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
    """``aten.sum`` of ``aten.sum.dim_IntList``; nothing of what is no operator of torch."""
    if isinstance(target, torch._ops.OpOverload):
        return f"{target.namespace}.{target._opname}"
    return ""
