"""``--precision auto``: measures which parts of a model must stay in fp32 so that its outputs stay within a tolerance.

The graph runs on the golden samples with groups of operators in halves (:mod:`.simulate`). A group is a module, or, for
operators outside of modules, one kind of operator. First the rules alone are tried. If the error is too great, the
error of each group in halves by itself is measured, and the costliest groups are kept in fp32, as few as the tolerance
allows. Polygraphy and ModelOpt's AutoCast search similarly on ONNX graphs.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram

from linux_side.precision.assign import Assignment, assign
from linux_side.precision.patterns import EVERYTHING, KeepPatterns, module_path
from linux_side.precision.rules import Rules, operator_name
from linux_side.precision.simulate import relative_errors, run_rounded

MOST_PASSES = 40
_MOST_MODULES, _MOST_GROUPS = 16, 24

Sample = tuple[Sequence[Any], Sequence[Any]]
# Patterns that are kept in fp32 together.
Group = tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A program with the rules and the samples for measuring it.

    Attributes:
        program: the functional program in fp32.
        rules: the rules.
        dtype: the half dtype.
        samples: the leaves of each call's inputs, and of its outputs in fp32.
        keep: patterns that the caller keeps in fp32 in any case.
        tf32: whether products that stay in fp32 use TF32.
    """

    program: ExportedProgram
    rules: Rules
    dtype: torch.dtype
    samples: Sequence[Sample]
    keep: Sequence[str] = ()
    tf32: bool = False

    def assigned(self, keep: Sequence[str] = ()) -> Assignment:
        """Returns the rules' assignment, with everything that these patterns match also in fp32."""
        return assign(self.program, self.rules, self.dtype, KeepPatterns([*self.keep, *keep]).reason)

    def errors(self, half: set[torch.fx.Node], samples: Sequence[Sample] | None = None) -> list[float | None]:
        """Returns the worst relative L2 error of each output over the samples; None if it cannot be measured.

        Args:
            half: the nodes in halves.
            samples: the samples to run; None for all.
        """
        tf32 = self.rules.tf32 if self.tf32 else ()
        state: dict[str, Any] = {}  # carries over from sample to sample, as when the samples were recorded
        runs = [
            relative_errors(run_rounded(self.program, half, self.dtype, inputs, tf32, state), want)
            for inputs, want in (self.samples if samples is None else samples)
        ]
        return [
            max((error for error in errors if error is not None), default=None) for errors in zip(*runs, strict=True)
        ]


@dataclass(frozen=True)
class Choice:
    """A choice of groups that stay in fp32 beyond the rules, with its measured errors.

    Attributes:
        keep: the patterns of the groups; ``*`` alone if everything stays.
        assignment: the precision of each node.
        errors: the error of each output, as returned by :meth:`Setting.errors`.
    """

    keep: list[str]
    assignment: Assignment
    errors: list[float | None]

    @property
    def error(self) -> float:
        """The error of the worst output."""
        return worst(self.errors)


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        best: the choice within the tolerance that keeps the fewest patterns in fp32. If no choice is within the
            tolerance, it keeps everything in fp32.
        passes: how many forward passes were made.
        ended: whether the search finished before its passes or its time ran out.
        nearest: the tried choice with the smallest error; None if none was tried.
    """

    best: Choice
    passes: int
    ended: bool
    nearest: Choice | None


def worst(errors: Sequence[float | None]) -> float:
    """Returns the greatest known error; 0 if none is known."""
    return max((error for error in errors if error is not None), default=0.0)


class _OutOfBudgetError(Exception):
    """The passes or the time of the search are used up."""


def choose_precision(setting: Setting, tolerance: float, *, seconds: float = math.inf) -> Found:
    """Finds a small set of groups that must stay in fp32.

    Args:
        setting: the program, the rules and the samples.
        tolerance: the relative L2 error allowed for the worst output.
        seconds: how long the search may take.
    """
    return _Search(setting, tolerance, seconds).run()


class _Search:
    def __init__(self, setting: Setting, tolerance: float, seconds: float) -> None:
        self._setting, self._tolerance = setting, tolerance
        self._end = time.monotonic() + seconds
        self._longest = 0.0
        self._passes = 0
        self._tried: list[Choice] = []

    def run(self) -> Found:
        ended = True
        try:
            if self._try([]).error > self._tolerance:
                self._add_groups(self._by_cost(groups_of(self._setting.program.graph)))
        except _OutOfBudgetError:
            ended = False
        nearest = min(self._tried, key=lambda choice: choice.error, default=None)
        holding = [choice for choice in self._tried if choice.error <= self._tolerance]
        # If no choice is within the tolerance, everything stays in fp32. That is measured whatever the budget.
        best = min(holding, key=lambda choice: len(choice.keep)) if holding else self._measured([(EVERYTHING,)])
        return Found(best, self._passes, ended, nearest)

    def _add_groups(self, groups: list[Group]) -> None:
        """Bisects how many of the costliest groups must stay in fp32; keeping more is assumed never to hurt."""
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

    def _leave_out(self, groups: list[Group]) -> None:
        """Drops each group, from the cheapest on, without which the error is still within the tolerance."""
        for group in reversed(groups[:-1]):
            fewer = [other for other in groups if other != group]
            if self._try(fewer).error <= self._tolerance:
                groups = fewer

    def _by_cost(self, groups: Sequence[Group]) -> list[Group]:
        """Sorts the groups by the error that each causes alone in halves, the greatest first."""
        return sorted(groups, key=self._cost_alone, reverse=True)

    def _cost_alone(self, group: Group) -> float:
        patterns = KeepPatterns(group)
        everything = self._setting.assigned().half
        alone = {node for node in everything if node.op == "placeholder" or patterns.reason(node)}
        return self._within_budget(lambda: worst(self._setting.errors(alone, self._setting.samples[:1])), 1)

    def _try(self, groups: Sequence[Group]) -> Choice:
        choice = self._within_budget(lambda: self._measured(groups), len(self._setting.samples))
        self._tried.append(choice)
        return choice

    def _measured(self, groups: Sequence[Group]) -> Choice:
        keep = [pattern for group in groups for pattern in group]
        assignment = self._setting.assigned(keep)
        return Choice(keep, assignment, self._setting.errors(assignment.half))

    def _within_budget(self, measure: Callable[[], Any], passes: int) -> Any:
        start = time.monotonic()
        if self._passes + passes > MOST_PASSES or start + self._longest * passes > self._end:
            raise _OutOfBudgetError
        self._passes += passes
        found = measure()
        self._longest = max(self._longest, (time.monotonic() - start) / passes)
        return found


def groups_of(graph: torch.fx.Graph) -> list[Group]:
    """Divides a graph's operators into a few groups: by module, or by kind for operators outside of modules."""
    nodes = [node for node in graph.nodes if node.op == "call_function" and operator_name(node.target)]
    modules = _modules([path for path in map(module_path, nodes) if path])
    kinds = Counter(operator_name(node.target) for node in nodes if not module_path(node))
    # Each of the most frequent kinds is a group; the others are one group together.
    names, left = [name for name, _ in kinds.most_common()], _MOST_GROUPS - len(modules) - 1
    rest = [tuple(names[left:])] if names[left:] else []
    return [*modules, *((name,) for name in names[:left]), *rest]


def _modules(paths: Sequence[str]) -> list[Group]:
    """Groups modules at the greatest depth with few enough of them; if depth 1 has too many, neighbours form groups."""
    deepest = max((path.count(".") + 1 for path in paths), default=0)
    found: list[str] = []
    for depth in range(1, deepest + 1):
        deeper = list(dict.fromkeys(".".join(path.split(".")[:depth]) for path in paths))
        if found and len(deeper) > _MOST_MODULES:
            break
        found = deeper
    size = -(-len(found) // _MOST_MODULES) or 1
    return [tuple(found[start : start + size]) for start in range(0, len(found), size)]
