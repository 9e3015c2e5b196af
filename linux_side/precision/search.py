"""``--precision auto``: which parts of a model must stay in fp32 so that its outputs keep a tolerance, by measurement.

The graph runs on the golden samples, with groups of operators in halves (:mod:`.simulate`). A group is a part of the
model: a module, or, in the model itself, one kind of operator. First the rules alone are tried. If they are not enough,
each group is put into halves by itself; those that cost most are kept in fp32, as few as the tolerance lets. Polygraphy
and ModelOpt's AutoCast search in like ways, on ONNX graphs.
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
# Patterns that are put into fp32 together.
Group = tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """What a search works on.

    Attributes:
        program: functional, in fp32.
        dtype: of the halves.
        samples: each the user inputs' leaves and the fp32 outputs' leaves.
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
        """The rules' assignment, with what these patterns name in fp32 too."""
        return assign(self.program, self.rules, self.dtype, KeepPatterns([*self.keep, *keep]).reason)

    def errors(self, half: set[torch.fx.Node], samples: Sequence[Sample] | None = None) -> list[float | None]:
        """Of each output, the worst relative L2 error over the samples; None where no sample tells."""
        tf32 = self.rules.tf32 if self.tf32 else ()
        state: dict[str, Any] = {}  # it goes on from sample to sample, as it did where the samples were recorded
        runs = [
            relative_errors(run_rounded(self.program, half, self.dtype, inputs, tf32, state), want)
            for inputs, want in (self.samples if samples is None else samples)
        ]
        return [
            max((error for error in errors if error is not None), default=None) for errors in zip(*runs, strict=True)
        ]


@dataclass(frozen=True)
class Choice:
    """Groups that stay in fp32 beyond the rules, and what that gives.

    Attributes:
        keep: their patterns; ``*`` alone where everything stays.
        errors: of each output, as :meth:`Setting.errors` gives them.
    """

    keep: list[str]
    assignment: Assignment
    errors: list[float | None]

    @property
    def error(self) -> float:
        """The worst output's."""
        return worst(self.errors)


@dataclass(frozen=True)
class Found:
    """What a search ended with.

    Attributes:
        best: the choice that holds the tolerance and keeps the fewest groups in fp32; of none that holds it, the one
            with the smallest error.
        passes: forward passes that were made.
        ended: whether the search was done before its passes and its time were over.
        nearest: of the choices that compute anything in halves, the one with the smallest error, if any was tried.
    """

    best: Choice
    passes: int
    ended: bool
    nearest: Choice | None


def worst(errors: Sequence[float | None]) -> float:
    """The greatest error that is known; 0 where none is."""
    return max((error for error in errors if error is not None), default=0.0)


class _OutOfBudgetError(Exception):
    """No pass or no time is left."""


def choose_precision(setting: Setting, tolerance: float, *, seconds: float = math.inf) -> Found:
    """Finds the fewest groups that must stay in fp32.

    Args:
        tolerance: relative L2 error of the worst output.
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
        # Not one of them holds: everything in fp32 is what is left, whatever the budget.
        best = min(holding, key=lambda choice: len(choice.keep)) if holding else self._measured([(EVERYTHING,)])
        return Found(best, self._passes, ended, nearest)

    def _add_groups(self, groups: list[Group]) -> None:
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

    def _leave_out(self, groups: list[Group]) -> None:
        """Takes away, from the cheapest on, each group without which the tolerance holds too."""
        for group in reversed(groups[:-1]):
            fewer = [other for other in groups if other != group]
            if self._try(fewer).error <= self._tolerance:
                groups = fewer

    def _by_cost(self, groups: Sequence[Group]) -> list[Group]:
        """The groups, the one first that loses most when it alone is in halves."""
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
    """Parts a graph's operators into a few groups: by module, as deep as that allows, and what is in none by kind."""
    nodes = [node for node in graph.nodes if node.op == "call_function" and operator_name(node.target)]
    modules = _modules([path for path in map(module_path, nodes) if path])
    kinds = Counter(operator_name(node.target) for node in nodes if not module_path(node))
    # The most frequent kinds by themselves, the others together.
    names, left = [name for name, _ in kinds.most_common()], _MOST_GROUPS - len(modules) - 1
    rest = [tuple(names[left:])] if names[left:] else []
    return [*modules, *((name,) for name in names[:left]), *rest]


def _modules(paths: Sequence[str]) -> list[Group]:
    """Modules of the greatest depth at which there are few; neighbours together where there are many at once."""
    deepest = max((path.count(".") + 1 for path in paths), default=0)
    found: list[str] = []
    for depth in range(1, deepest + 1):
        deeper = list(dict.fromkeys(".".join(path.split(".")[:depth]) for path in paths))
        if found and len(deeper) > _MOST_MODULES:
            break
        found = deeper
    size = -(-len(found) // _MOST_MODULES) or 1
    return [tuple(found[start : start + size]) for start in range(0, len(found), size)]
