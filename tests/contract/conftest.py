"""Fixtures of the locked wheels, which are downloaded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from .sources import Sources
from .wheels import IndexUnreachableError, Wheel, fetch, locked_wheels

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("contract"))  # the wheels are read once


@pytest.fixture(scope="session")
def wheel_files() -> dict[Wheel, Path]:
    try:
        return {wheel: fetch(wheel) for wheel in locked_wheels()}
    except IndexUnreachableError as error:
        pytest.skip(f"CONTRACT NOT CHECKED: {error}")


@pytest.fixture(scope="session")
def sources(wheel_files: dict[Wheel, Path]) -> dict[Wheel, Sources]:
    return {wheel: Sources.of_wheel(file, str(wheel)) for wheel, file in wheel_files.items()}
