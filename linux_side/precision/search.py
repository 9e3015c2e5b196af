"""``--precision auto``: which parts of a model must stay in fp32 so that its outputs keep a tolerance, by measurement.

The graph runs on the golden samples, with groups of operators in halves (:mod:`.simulate`). A group is a part of the
model: a module, or, in the model itself, one kind of operator. First the rules alone are tried. If they are not enough,
each group is put into halves by itself; those that cost most are kept in fp32, as few as the tolerance lets.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram

from linux_side.precision.assign import Assignment, assign
from linux_side.precision.plan import KeepPatterns, module_path
from linux_side.precision.rules import Rules, operator_name
from linux_side.precision.simulate import relative_errors, run_rounded

MOST_PASSES = 40
_MOST_GROUPS = 16

Sample = tuple[Sequence[Any], Sequence[Any]]


@dataclass(frozen=True)
class Choice:
    """What the search ended with.

    Attributes:
        keep: patterns of what stays in fp32 beyond the rules.
        assignment: of the graph's nodes.
        error: the worst output's relative L2 error over all samples.
        passes: forward passes that were made.
    """

    keep: list[str]
    assignment: Assignment
    error: float
    passes: int


class OutOfBudget(Exception):  # noqa: N818 - the search ends with the best that it has
    """No pass or no time is left."""


def choose_precision(
    program: ExportedProgram,
    rules: Rules,
    dtype: torch.dtype,
    samples: Sequence[Sample],
    tolerance: float,
    *,
    keep: Sequence[str] = (),
    seconds: float = math.inf,
) -> Choice:
    """Finds the fewest groups that must stay in fp32.

    Args:
        program: functional, in fp32.
        samples: each the user inputs' leaves and the fp32 outputs' leaves.
        tolerance: relative L2 error of the worst output.
        keep: patterns that the caller keeps in fp32 in any case.
        seconds: how long the search may take.

    Returns:
        The best choice that was found within the passes and the time; its error tells whether the tolerance holds.
    """
    return _Search(program, rules, dtype, samples, tolerance, keep, seconds).run()


class _Search:
    def __init__(
        self,
        program: ExportedProgram,
        rules: Rules,
        dtype: torch.dtype,
        samples: Sequence[Sample],
        tolerance: float,
        keep: Sequence[str],
        seconds: float,
    ) -> None:
        self._program, self._rules, self._dtype = program, rules, dtype
        self._samples, self._tolerance, self._keep = samples, tolerance, list(keep)
        self._end = time.monotonic() + seconds
        self._passes = 0
        self._best: Choice | None = None

    def run(self) -> Choice:
        try:
            if self._try([]).error > self._tolerance:
                self._add_groups(self._by_cost(groups_of(self._program.graph)))
        except OutOfBudget:
            pass
        if self._best is None:  # not even one pass: everything stays in fp32
            return Choice(["*"], Assignment(), 0.0, self._passes)
        return Choice(self._best.keep, self._best.assignment, self._best.error, self._passes)

    def _add_groups(self, groups: list[str]) -> None:
        """Bisects how many of the costliest groups must stay; more of them never make it worse, as a rule."""
        enough = len(groups)
        if self._try(groups).error > self._tolerance:
            return
        few = 0
        while enough - few > 1:
            middle = (few + enough) // 2
            if self._try(groups[:middle]).error <= self._tolerance:
                enough = middle
            else:
                few = middle
        self._leave_out(groups[:enough])

    def _leave_out(self, groups: list[str]) -> None:
        """Takes away, from the cheapest on, each group without which the tolerance holds too."""
        for group in reversed(groups[:-1]):
            fewer = [other for other in groups if other != group]
            if self._try(fewer).error <= self._tolerance:
                groups = fewer

    def _by_cost(self, groups: Sequence[str]) -> list[str]:
        """The groups, the one first that loses most when it alone is in halves."""
        return sorted(groups, key=self._cost_alone, reverse=True)

    def _cost_alone(self, group: str) -> float:
        patterns = KeepPatterns([group])
        everything = self._assign([])
        alone = {node for node in everything.half if node.op == "placeholder" or patterns.reason(node)}
        return self._error(alone, self._samples[:1])

    def _try(self, groups: Sequence[str]) -> Choice:
        assignment = self._assign(groups)
        choice = Choice(list(groups), assignment, self._error(assignment.half, self._samples), self._passes)
        if self._best is None or self._is_better(choice, self._best):
            self._best = choice
        return choice

    def _is_better(self, one: Choice, other: Choice) -> bool:
        """Within the tolerance, fewer groups; else a smaller error."""
        within = one.error <= self._tolerance, other.error <= self._tolerance
        if all(within):
            return len(one.keep) < len(other.keep)
        return within[0] or (not within[1] and one.error < other.error)

    def _assign(self, groups: Sequence[str]) -> Assignment:
        return assign(self._program, self._rules, self._dtype, KeepPatterns([*self._keep, *groups]).reason)

    def _error(self, half: set[torch.fx.Node], samples: Sequence[Sample]) -> float:
        return max(self._errors_of(half, inputs, outputs) for inputs, outputs in samples)

    def _errors_of(self, half: set[torch.fx.Node], inputs: Sequence[Any], outputs: Sequence[Any]) -> float:
        if self._passes >= MOST_PASSES or time.monotonic() > self._end:
            raise OutOfBudget
        self._passes += 1
        got = run_rounded(self._program, half, self._dtype, inputs)
        return max((error for error in relative_errors(got, outputs) if error is not None), default=0.0)


def groups_of(graph: torch.fx.Graph) -> list[str]:
    """Patterns that part a graph's operators into at most sixteen groups, by module path as deep as that allows."""
    nodes = [node for node in graph.nodes if node.op == "call_function" and operator_name(node.target)]
    paths = [module_path(node) for node in nodes]
    deepest = max((path.count(".") + 1 for path in paths if path), default=0)
    groups: list[str] = []
    for depth in range(1, deepest + 1):
        found = list(dict.fromkeys(_shortened(path, depth) for path in paths if path))
        if groups and len(found) > _MOST_GROUPS:
            break
        groups = found
    return [*groups, *_kinds_without_module(nodes)]


def _shortened(path: str, depth: int) -> str:
    return ".".join(path.split(".")[:depth])


def _kinds_without_module(nodes: Sequence[torch.fx.Node]) -> list[str]:
    """The operators that the model itself calls, by kind, the most frequent first."""
    count: Counter[str] = Counter(operator_name(node.target) for node in nodes if not module_path(node))
    return [name for name, _ in count.most_common(_MOST_GROUPS)]
