"""Which inputs get an in-place CUDA graph, and what such a graph relies on."""

from __future__ import annotations

from collections import OrderedDict

import pytest

torch = pytest.importorskip("torch")

from windows_side.execution.stable_addresses import StableAddresses, places_of  # noqa: E402


def captures(addresses: list[int], limit: int) -> int:
    """Returns how many captures calls at these addresses cause, where ``limit`` graphs are kept."""
    hot, kept, count = StableAddresses(), OrderedDict[object, None](), 0
    for address in addresses:
        places = ((address,),)
        if places not in kept and hot.worth_capturing(places):
            count += 1
            kept[places] = None
            if replaced := len(kept) > limit:
                kept.popitem(last=False)
            hot.captured(places, replaced=replaced)
        elif places in kept:
            kept.move_to_end(places)
    return count


def test_a_buffer_of_the_callers_gets_a_graph_after_some_calls() -> None:
    assert captures([1] * 3, limit=4) == 0
    assert captures([1] * 1000, limit=4) == 1
    assert captures([1, 2, 3] * 1000, limit=4) == 3


def test_more_buffers_than_graphs_do_not_capture_for_ever() -> None:
    assert captures(list(range(6)) * 10_000, limit=4) <= 16


def test_ever_new_addresses_get_none() -> None:
    assert captures(list(range(100_000)), limit=4) == 0


def test_a_capture_that_fails_is_tried_again_ever_more_seldom() -> None:
    hot, tries = StableAddresses(), 0
    for _ in range(1000):
        if hot.worth_capturing("here"):
            tries += 1
            hot.failed()
    assert 4 <= tries <= 8


def test_a_place_is_all_that_a_graph_takes_for_granted() -> None:
    memory = torch.zeros(16)
    x = memory.view(4, 4)
    others = [x.t(), memory.view(2, 8), memory.view(torch.int32).view(4, 4), x[1:], torch._neg_view(x), x.clone()]
    assert len({places_of([x]), *(places_of([other]) for other in others)}) == 1 + len(others)
    assert places_of([x]) == places_of([memory.view(4, 4)])


def test_what_has_no_memory_of_its_own_has_no_place() -> None:
    assert places_of([torch.zeros(2), 3.0]) == ()
    assert places_of([torch.zeros(2, 2).to_sparse()]) == ()
