"""Exports models in spite of sizes that torch specializes to the example's.

A model that compares a size with a number of its own (SwinIR has masks for 64 x 64) takes the branch for that number if
the example has that size, and torch.export then accepts no other size. So the model is exported with another size of
the range. A size that torch fixes at any example's value is a loop that torch unrolls, such as a recurrent layer's loop
over time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch.export import ExportedProgram

from linux_side.frontend.failed_export import failed_export
from linux_side.guards.collect import ProgramGuards
from linux_side.guards.ranges import is_input
from linux_side.options import DynamicDimension
from toolchain.errors import BuildFailedError, TrtcrossError
from toolchain.guards.grammar import Size
from toolchain.text import first_line

_ATTEMPTS = 4
_STEPS = 37  # a prime number, so that few of the sizes are multiples of one number
_OPPOSITE = 2  # the most refused sizes that a model is exported with
_FIXED = re.compile(
    r"You marked (\S+)\.size\(\)\[(\d+)\] as dynamic but your code specialized it to be a constant \((\d+)\)"
)
# Lines that torch appends to any error, and its hints for debugging torch itself.
_BOILERPLATE = re.compile(
    r"(The error above occurred|For more information|For extended logs|For more debugging|For C\+\+|If you suspect"
    r"|Caused by: \(_|The following call raised|\(unhinted)"
)
_EMPTY = re.compile(r"Constraints violated|Could not guard on data-dependent|\S*$")

Leaves = Sequence[Any]


def export_at_free_sizes(
    export: Callable[[Leaves], ExportedProgram],
    export_bytecode: Callable[[Sequence[Leaves]], ExportedProgram | None],
    module: torch.nn.Module,
    dynamic: Sequence[DynamicDimension],
    names: Sequence[str],
    leaves: Leaves,
    where: str,
) -> tuple[ExportedProgram, Leaves]:
    """Exports a model, at other sizes than the example's if torch fixes those.

    Args:
        export: exports the model, given the leaves of its inputs.
        export_bytecode: exports the model from its bytecode, given the leaves of several calls; None if that fails. It
            is used if torch fixes a size at any example's value: ``len(x)`` must be a plain number when the model runs,
            but a bytecode tracer can treat it as a size.
        module: the model.
        dynamic: the dynamic dimensions with their ranges.
        names: the names of the leaves.
        leaves: the leaves of the example.
        where: the model's name, for errors.

    Returns:
        The program, and the leaves with which it was exported.

    Raises:
        BuildFailedError: torch.export fails, or fixes a dynamic size at any example's value.
    """
    tried: list[dict[Size, int]] = []
    calls: list[Leaves] = []
    for sizes in _attempts(dynamic, names, leaves):
        given = _resized(leaves, names, sizes) if sizes else leaves
        calls.append(given)
        try:
            return export(given), given
        except TrtcrossError:
            raise
        except Exception as error:
            fixed = _fixed_sizes(error, dynamic, names, given)
            tried.append(fixed)
            if not fixed:
                raise failed_export(error, where, torch_reason(error)) from error
            last = error
            if _follow_the_example(tried) or len(tried) == _ATTEMPTS:
                break
    if not _recurrent(module) and (program := export_bytecode(calls)):
        return program, leaves
    raise _always_fixed(last, fixed, tried, module, where) from last


def refused_sizes(guards: ProgramGuards, dynamic: Sequence[DynamicDimension]) -> list[dict[Size, int]]:
    """Returns each MAX, OPT and MIN of the profiles that a program does not take."""
    refused = []
    for profile in range(min(len(item.ranges) for item in dynamic)):
        for kind in ("max", "opt", "min"):
            sizes = {item.size: getattr(item.ranges[profile], kind) for item in dynamic}
            if not guards.takes({**guards.example(), **sizes}):
                refused.append(sizes)
    return refused


def taken_between(guards: ProgramGuards, dynamic: Sequence[DynamicDimension]) -> int:
    """Returns how many of some sizes from MIN to MAX, all dimensions together, a program takes."""
    steps = [{i.size: i.lowest + (i.highest - i.lowest) * step // _STEPS for i in dynamic} for step in range(_STEPS)]
    return sum(guards.takes({**guards.example(), **sizes}) for sizes in steps)


def other_exports(
    export: Callable[[Leaves], ExportedProgram],
    export_bytecode: Callable[[Sequence[Leaves]], ExportedProgram | None],
    dynamic: Sequence[DynamicDimension],
    names: Sequence[str],
    leaves: Leaves,
    refused: Sequence[Mapping[Size, int]],
) -> Iterator[tuple[ExportedProgram, Leaves]]:
    """Yields other programs of a model whose first program does not take the requested sizes, each with its leaves.

    A model may test whether its image has the size that it was trained with, needs no padding, or is one window, and
    the example decides the branch; the sizes that the program refuses decide it otherwise. If it rounds a quotient of
    sizes (``int(windows / (height * width / 64))``), Python makes that a plain number, and a bytecode tracer does not.

    Args:
        export: exports the model, given the leaves of its inputs.
        export_bytecode: exports the model from its bytecode, given the leaves of several calls; None if that fails.
        dynamic: the dynamic dimensions with their ranges.
        names: the names of the leaves.
        leaves: the leaves of the example.
        refused: the sizes of profiles that the first program refuses.
    """
    kinds = [_resized(leaves, names, {i.size: getattr(i.ranges[0], kind) for i in dynamic}) for kind in ("min", "max")]

    def by_bytecode(given: Leaves) -> ExportedProgram | None:
        return export_bytecode([given, *(call for call in (leaves, *kinds) if call is not given)])

    # A dimension of size 1 is traced at 2: tracing at 1 specializes many models.
    least = {item.size: min(2, item.highest) for item in dynamic}
    opposite = [
        _resized(leaves, names, {place: max(size, least[place]) for place, size in sizes.items()})
        for sizes in refused[:_OPPOSITE]
    ]
    others = [_resized(leaves, names, sizes) for sizes in islice(_attempts(dynamic, names, leaves), 1, _ATTEMPTS)]
    tracers: list[tuple[Callable[[Leaves], ExportedProgram | None], Sequence[Leaves]]] = [
        (export, opposite),
        (by_bytecode, [leaves]),
        (export, others),
        (by_bytecode, opposite),
    ]
    for traced, given in ((tracer, given) for tracer, examples in tracers for given in examples):
        try:
            program = traced(given)
        except Exception:  # noqa: BLE001, S112 - any class; the guards of the first program are reported instead
            continue
        if program:
            yield program, given


def _attempts(dynamic: Sequence[DynamicDimension], names: Sequence[str], leaves: Leaves) -> Iterator[dict[Size, int]]:
    """Yields the example's own sizes, then others of the ranges; sizes that are equal in the example stay equal."""
    places = {item.size: item for item in dynamic}
    example = {place: leaves[list(names).index(place.input)].shape[place.dim] for place in places}
    yield {}
    others = {
        size: list(_others(size, [places[place] for place in places if example[place] == size]))
        for size in set(example.values())
    }
    for number in range(max(map(len, others.values()), default=0)):
        yield {
            place: others[size][min(number, len(others[size]) - 1)] for place, size in example.items() if others[size]
        }


def _others(size: int, items: Sequence[DynamicDimension]) -> Iterator[int]:
    """Yields other sizes that are in all ranges, those divisible by large powers of two that divide the size first."""
    low, high = max(max(item.lowest, 2) for item in items), min(item.highest for item in items)
    step = size & -size  # the largest power of two that divides it
    while step >= 1:
        for distance in (step // 2 or 1, step):
            for other in (size + distance, size - distance):
                if low <= other <= high:
                    yield other
        step //= 4


def _resized(leaves: Leaves, names: Sequence[str], sizes: Mapping[Size, int]) -> list[Any]:
    """Returns the leaves at other sizes: rows are dropped at the end, or repeated from the start."""
    resized = list(leaves)
    for place, size in sizes.items():
        index = list(names).index(place.input)
        rows = torch.arange(size) % resized[index].shape[place.dim]
        resized[index] = resized[index].index_select(place.dim, rows)
    return resized


def _fixed_sizes(
    error: Exception, dynamic: Sequence[DynamicDimension], names: Sequence[str], leaves: Leaves
) -> dict[Size, int]:
    """Returns the dynamic sizes that torch fixed at the example's, according to its error; none for any other error."""
    found = {}
    for source, dim, value in _FIXED.findall(str(error)):
        for item in dynamic:
            if item.dim == int(dim) and is_input(item.input, source):
                found[Size(item.input, item.dim)] = int(value)
    return found


def _follow_the_example(tried: Sequence[Mapping[Size, int]]) -> bool:
    """Returns whether torch fixed a size at different values for different examples."""
    return len(tried) > 1 and any(tried[0].get(place, size) != size for place, size in tried[-1].items())


def _always_fixed(
    error: Exception,
    fixed: Mapping[Size, int],
    tried: Sequence[Mapping[Size, int]],
    module: torch.nn.Module,
    where: str,
) -> BuildFailedError:
    first = {place: size for attempt in reversed(tried) for place, size in attempt.items() if place in fixed}
    said = ", ".join(f"{place} at {size}" for place, size in first.items())
    names = " and ".join(map(str, first))
    recurrent = _recurrent(module)
    if recurrent and _follow_the_example(tried):
        return BuildFailedError(
            f"torch.export fixes {said}: it unrolls time, one copy of a recurrent layer for each step of the example; "
            f"recurrent here: {', '.join(recurrent[:3])}",
            where=where,
            remedy=f"leave --dynamic {names} out and build for that length: pad shorter inputs, build an artifact for "
            "each length, or let forward do one step, with the hidden state in and out",
        )
    at = f"; with other sizes of the range it fixes {', '.join(f'{p} at {s}' for p, s in fixed.items())}"
    at = at if len(tried) > 1 else ""
    return BuildFailedError(
        f"torch.export fixes {said}, the example's size{at}: the model loops over it, or uses it as a plain number",
        where=where,
        remedy=f"leave --dynamic {names} out, or rewrite what the model does with that size with "
        "tensors; -v shows torch's whole report",
    )


def _recurrent(module: torch.nn.Module) -> list[str]:
    return [
        f"{name or 'the model'} ({type(part).__name__})"
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.RNNBase)
    ]


def torch_reason(error: BaseException) -> str:
    """Returns torch's reason in an error: its first line, or all informative lines if the first one is not."""
    first = first_line(error)
    if not _EMPTY.match(first):
        return first
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not _BOILERPLATE.match(line)]
    if len(told) < 2:  # such as an operator's name
        told = [f"{type(error).__name__}: {first}"]
    return "\n  ".join(told)
