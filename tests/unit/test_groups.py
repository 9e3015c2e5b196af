"""Tests of a group run in one process: where they do not, nothing fails, and what they share is made in each."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("kept together")
def test_groups_are_told_to_xdist(request: pytest.FixtureRequest) -> None:
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("not run with -n and --dist loadgroup, as make test does")
    assert request.node.nodeid.endswith("@kept together"), "this pytest-xdist makes no groups with this pytest"
