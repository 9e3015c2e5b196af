"""Finds sizes that satisfy guards near sizes that do not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from toolchain.guards.bounds import UNBOUNDED, Ranges
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import Size

_TRIES = 20_000


def nearest(guards: Guards, sizes: Mapping[Size, int], ranges: Ranges) -> list[dict[Size, int]]:
    """Returns the nearest sizes that satisfy the guards: the given ones if they do, else one below and one above.

    If a change of one size is enough, only that size is changed; otherwise all sizes of the guards may be, by as little
    as possible. The result is empty if nothing was found.

    Args:
        guards: the guards.
        sizes: a value for each size of the guards; further sizes stay as they are.
        ranges: the range of each size that may be changed.
    """
    if guards.holds(sizes):
        return [dict(sizes)]
    free = [size for size in guards.sizes if size in ranges]
    alone = [found for size in free if (found := list(_along(guards, sizes, size, ranges)))]
    if alone:
        return min(alone, key=lambda found: min(_distance(changed, sizes) for changed in found))
    return list(itertools.islice(_around(guards, sizes, free, ranges), 1)) if free else []


def _along(guards: Guards, sizes: Mapping[Size, int], size: Size, ranges: Ranges) -> Iterator[dict[Size, int]]:
    """Yields the nearest below and the nearest above, with only this size changed."""
    low, high = ranges[size]
    high = UNBOUNDED if high is None else high
    below = range(min(sizes[size] - 1, high), low - 1, -1)
    above = range(max(sizes[size] + 1, low), high + 1)
    for values in (below, above):
        for value in itertools.islice(values, _TRIES):
            changed = {**sizes, size: value}
            if guards.holds(changed):
                yield changed
                break


def _around(guards: Guards, sizes: Mapping[Size, int], free: list[Size], ranges: Ranges) -> Iterator[dict[Size, int]]:
    """Yields assignments that satisfy the guards, by growing distance of the size that is changed most."""
    tries = itertools.count()
    for radius in itertools.count(1):
        for steps in itertools.product(range(-radius, radius + 1), repeat=len(free)):
            if next(tries) > _TRIES:
                return
            if max(map(abs, steps)) != radius:
                continue
            changed = {**sizes, **{size: sizes[size] + step for size, step in zip(free, steps, strict=True)}}
            if all(_inside(changed[size], ranges, size) for size in free) and guards.holds(changed):
                yield changed


def _inside(value: int, ranges: Ranges, size: Size) -> bool:
    low, high = ranges[size]
    return low <= value and (high is None or value <= high)


def _distance(changed: Mapping[Size, int], sizes: Mapping[Size, int]) -> int:
    return sum(abs(changed[size] - sizes[size]) for size in sizes)
