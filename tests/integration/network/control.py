"""Loops and conditionals, whose boundary layers determine which other layers belong to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.integration.network.layers import Boundary, Compute, Layer, NetworkError, demand, only, reads
from tests.integration.network.steps import Runnable, Slot, Step, in_order, run_steps


def _never() -> Tensor:
    raise NetworkError("a border was computed by itself")


@reads("TRIP_LIMIT", "ITripLimitLayer")
def trip_limit(layer: Any, recorded: Layer) -> Compute:
    recorded.boundary = Boundary(layer.loop.name, "LIMIT", layer.kind.name)
    return _never


@reads("ITERATOR", "IIteratorLayer")
def iterator(layer: Any, recorded: Layer) -> Compute:
    recorded.boundary = Boundary(layer.loop.name, "ITERATOR", axis=layer.axis, backward=layer.reverse)
    return _never


@reads("RECURRENCE", "IRecurrenceLayer")
def recurrence(layer: Any, recorded: Layer) -> Compute:
    recorded.boundary = Boundary(layer.loop.name, "RECURRENCE")
    return _never


@reads("LOOP_OUTPUT", "ILoopOutputLayer")
def loop_output(layer: Any, recorded: Layer) -> Compute:
    recorded.boundary = Boundary(layer.loop.name, "OUTPUT", layer.kind.name, axis=layer.axis)
    return _never


@reads("CONDITION", "IConditionLayer")
def condition(layer: Any, recorded: Layer) -> Compute:
    recorded.boundary = Boundary(layer.conditional.name, "CONDITION")
    return lambda chosen: []


@reads("CONDITIONAL_INPUT", "IIfConditionalInputLayer")
def conditional_input(layer: Any, recorded: Layer) -> Compute:
    return lambda x: x


@reads("CONDITIONAL_OUTPUT", "IIfConditionalOutputLayer")
def conditional_output(layer: Any, recorded: Layer) -> Compute:
    """Computes both sides, so that neither may do something undefined; TensorRT computes only the one that it needs."""
    recorded.boundary = Boundary(layer.conditional.name, "CHOICE")
    return lambda chosen, then, otherwise: then if bool(chosen) else otherwise


def structured(steps: Sequence[Step]) -> tuple[Runnable, ...]:
    """Returns the steps in order, with each loop as one step, and each conditional's condition where it is needed."""
    runnables: list[Any] = [_with_condition(step, steps) for step in steps]
    loops = {step.boundary.scope for step in steps if step.boundary and step.kind in LOOP_KINDS}
    for name in sorted(loops, key=lambda name: len(_body(name, runnables))):  # inner loops first
        runnables = _with_loop(name, runnables)
    return in_order(runnables)


LOOP_KINDS = ("TRIP_LIMIT", "ITERATOR", "RECURRENCE", "LOOP_OUTPUT")


def _with_condition(step: Step, steps: Sequence[Step]) -> Step:
    if step.kind != "CONDITIONAL_OUTPUT" or step.boundary is None:
        return step
    conditions = [other for other in steps if other.kind == "CONDITION"]
    (chosen,) = [
        other.inputs[0] for other in conditions if other.boundary and other.boundary.scope == step.boundary.scope
    ]
    return Step(step.layer, step.kind, (chosen, *step.inputs), step.outputs, step.compute)


def _borders(name: str, runnables: Iterable[Any]) -> list[Step]:
    return [
        step
        for step in runnables
        if isinstance(step, Step) and step.kind in LOOP_KINDS and step.boundary and step.boundary.scope == name
    ]


def _body(name: str, runnables: Sequence[Any]) -> list[Any]:
    """Returns the steps that depend on a loop's iteration, without the loop's boundaries."""
    borders = _borders(name, runnables)
    varying = {index for step in borders if step.kind != "LOOP_OUTPUT" for index in step.outputs}
    inside: list[Any] = []
    rest = [step for step in runnables if step not in borders]
    found = True
    while found:
        found = False
        for step in list(rest):
            if varying.intersection(step.inputs):
                rest.remove(step)
                inside.append(step)
                varying.update(step.outputs)
                found = True
    return inside


def _with_loop(name: str, runnables: Sequence[Any]) -> list[Any]:
    borders, body = _borders(name, runnables), _body(name, runnables)
    parts: dict[str, list[Step]] = defaultdict(list)
    for step in borders:
        assert step.boundary is not None
        parts[step.boundary.role].append(step)
    loop = Loop(
        name,
        in_order(body),
        tuple(parts["LIMIT"]),
        tuple(parts["ITERATOR"]),
        tuple(parts["RECURRENCE"]),
        tuple(parts["OUTPUT"]),
    )
    return [step for step in runnables if step not in borders and step not in body] + [loop]


@dataclass(frozen=True)
class Loop:
    """A loop as one step, which runs its body once for each iteration."""

    name: str
    body: tuple[Runnable, ...]
    limits: tuple[Step, ...]
    iterators: tuple[Step, ...]
    recurrences: tuple[Step, ...]
    results: tuple[Step, ...]

    @property
    def inputs(self) -> tuple[int | None, ...]:
        """The slots that the loop reads from outside."""
        steps = (*self.body, *self.limits, *self.iterators, *self.recurrences, *self.results)
        made = {index for step in (*self.body, *self.iterators, *self.recurrences) for index in step.outputs}
        return tuple(sorted({index for step in steps for index in step.inputs if index is not None} - made))

    @property
    def outputs(self) -> tuple[int, ...]:
        return tuple(step.outputs[0] for step in self.results)

    def run(self, arguments: Sequence[Tensor | None], slots: Sequence[Slot]) -> list[Tensor]:
        values = {
            index: value
            for index, value in zip(self.inputs, arguments, strict=True)
            if index is not None and value is not None
        }
        count = self._limit("COUNT")
        again = self._limit("WHILE")
        trips = None if count is None else int(values[count])
        current = {step.outputs[0]: values[_first(step)] for step in self.recurrences}
        collected: dict[int, list[Tensor]] = {index: [] for index in self.outputs}
        number = 0
        while trips is None or number < trips:
            inner = {**values, **current, **self._slices(values, number, trips)}
            run_steps(self.body, inner, slots)
            if again is not None and not bool(inner[again]):
                break
            for step in self.results:
                collected[step.outputs[0]].append(inner[_first(step)])
            current = {step.outputs[0]: inner[_second(step)] for step in self.recurrences}
            number += 1
            only(number < 100_000, "a loop without an end")
        return [self._result(step, values, current, collected[step.outputs[0]]) for step in self.results]

    def _limit(self, kind: str) -> int | None:
        return next((_first(step) for step in self.limits if step.boundary and step.boundary.kind == kind), None)

    def _slices(self, values: dict[int, Tensor], number: int, trips: int | None) -> dict[int, Tensor]:
        """Returns each iterator's part of its tensor."""
        parts = {}
        for step in self.iterators:
            assert step.boundary is not None
            whole, place = values[_first(step)], number
            if step.boundary.backward:
                demand(trips is not None, "an iterator runs backward without a count")
                place = (trips or 0) - 1 - number
            demand(place < whole.shape[step.boundary.axis], f"iteration {number} is beyond its tensor")
            parts[step.outputs[0]] = whole.select(step.boundary.axis, place)
        return parts

    def _result(
        self, step: Step, values: dict[int, Tensor], current: dict[int, Tensor], collected: list[Tensor]
    ) -> Tensor:
        assert step.boundary is not None
        if step.boundary.kind == "LAST_VALUE":
            demand(_first(step) in current, "the last value of what is no recurrence")
            return current[_first(step)]
        demand(int(values[_second(step)]) == len(collected), f"{len(collected)} iterations in another length")
        demand(bool(collected), "a loop without iterations")
        parts = collected[::-1] if step.boundary.kind == "REVERSE" else collected
        return torch.stack(parts, dim=step.boundary.axis)


def _first(step: Step) -> int:
    index = step.inputs[0]
    assert index is not None
    return index


def _second(step: Step) -> int:
    demand(len(step.inputs) > 1 and step.inputs[1] is not None, f"{step.layer!r} has no second input")
    index = step.inputs[1]
    assert index is not None
    return index
