"""TensorRT-RTX runs an engine only where the variable of TF32 is what it was for the build."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.handmade import MANIFEST
from toolchain.engine.tf32 import VARIABLE
from toolchain.host.requirements import State
from toolchain.manifest.models import Manifest
from windows_side.preflight.tf32 import first_value, tf32_requirement


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody has asked for the variable yet, and it is not set."""
    monkeypatch.delenv(VARIABLE, raising=False)
    first_value.cache_clear()
    yield
    first_value.cache_clear()


def manifest(settings: dict[str, object], backend: str = "tensorrt-rtx") -> Manifest:
    target = {**MANIFEST["target"], "backend": backend}
    return Manifest.model_validate({**MANIFEST, "target": target, "settings": settings})


@pytest.mark.parametrize(
    ("tf32", "here", "state"),
    [
        (False, "0", State.MET),
        (False, None, State.NOT_MET),
        (False, "1", State.NOT_MET),
        (True, "0", State.NOT_MET),
        (True, "1", State.NOT_MET),
    ],
)
def test_the_variable_must_be_that_of_the_build(
    monkeypatch: pytest.MonkeyPatch, tf32: bool, here: str | None, state: State
) -> None:
    if here is not None:
        monkeypatch.setenv(VARIABLE, here)
    (found,) = tf32_requirement(manifest({"tf32": tf32}))
    assert found.state is state
    if state is State.NOT_MET:
        assert VARIABLE in str(found.remedy) and "before Python starts" in str(found.remedy)


def test_nothing_is_required_where_nothing_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not list(tf32_requirement(manifest({"tf32": True})))
    monkeypatch.setenv(VARIABLE, "0")
    assert not list(tf32_requirement(manifest({})))  # a foreign file does not say
    assert not list(tf32_requirement(manifest({"tf32": False}, "tensorrt")))


@pytest.mark.parametrize("tf32", [True, False])
def test_a_variable_that_changes_within_a_process_is_refused(monkeypatch: pytest.MonkeyPatch, tf32: bool) -> None:
    """The first engine fixes how later ones compute, whatever the variable is then."""
    list(tf32_requirement(manifest({"tf32": True})))
    monkeypatch.setenv(VARIABLE, "0")
    (found,) = tf32_requirement(manifest({"tf32": tf32}))
    assert found.state is State.NOT_MET and "changed in this process" in found.found
