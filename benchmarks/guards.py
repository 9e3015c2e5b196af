"""Measures the time that guards add to a call: ``python -m benchmarks.guards``. Needs neither torch nor a GPU.

Exits with 1 if a set of guards takes longer than the limit.
"""

from __future__ import annotations

import sys
import timeit

from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import Operation, parse_rule

# What a model has: the guards that its artifact keeps, and sizes that satisfy them.
SETS = {
    "none": ([], []),
    "a multiple of 8": (["x.2 % 8 == 0"], [64]),
    "an image of multiples of 32": (["x.2 % 32 == 0", "x.3 % 32 == 0"], [512, 768]),
    "a size made of another": (["y.1 == 2 * x.1"], [64, 32]),
    "a ratio, a product and an alternative": (
        ["2 * x.2 > 3 * x.3", "x.2 * x.3 <= 1048576", "x.2 % 8 == 0 or x.3 == 64"],
        [512, 256],
    ),
    "eight guards on eight sizes": ([f"x.{i} % {i + 2} == 0" for i in range(8)], [2520] * 8),
    "a chain of quotients": (["(x.1 - 1 + (x.1 + 1) // 2) // ((x.1 + 1) // 2) == 2"], [16]),
}
LIMIT = 10.0  # microseconds a call


def microseconds(rules: list[Operation], values: list[int], repeat: int = 20_000) -> float:
    """Returns the least time of a check among seven runs."""
    guards = Guards(rules)
    if guards.violated(values) is not None:
        raise ValueError(f"{values} violate {rules}")
    return min(timeit.repeat(lambda: guards.violated(values), number=repeat, repeat=7)) / repeat * 1e6


def main() -> int:
    print("| guards | microseconds a call |\n|---|---|")
    worst = 0.0
    for name, (texts, values) in SETS.items():
        taken = microseconds(list(map(parse_rule, texts)), values)
        worst = max(worst, taken)
        print(f"| {name} | {taken:.2f} |")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
