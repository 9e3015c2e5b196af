"""Each part of an artifact is read once, however many callers need it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.foreign import Foreign
from tests.unit.handmade import Handmade, plan
from toolchain import artifact as artifact_module
from toolchain import open_artifact
from toolchain.artifact import Artifact
from toolchain.checker.structure import check_structure
from toolchain.foreign import derive
from toolchain.graph import document
from windows_side.preflight import requirements as preflight
from windows_side.preflight.selection import select


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[None]:
    """Counts the calls of a function, which still works as before."""
    real: Callable[..., Any] = getattr(owner, name)
    calls: list[None] = []

    def count(*arguments: Any, **keywords: Any) -> Any:
        calls.append(None)
        return real(*arguments, **keywords)

    monkeypatch.setattr(owner, name, count)
    return calls


def test_plan_headers_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Handmade(engines=[plan(b"1"), plan(b"2")]).write(tmp_path / "a.pt2")
    headers = counted(monkeypatch, artifact_module, "parse_plan_header")
    with open_artifact(path) as artifact:
        preflight.check(artifact)
        check_structure(artifact)
        assert artifact.engines[0].plan_header() == artifact.engines[1].plan_header()
    assert len(headers) == 2


def test_the_graph_is_read_once_by_all_that_a_load_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Handmade().write(tmp_path / "a.pt2")
    passes, whole = counted(monkeypatch, artifact_module, "read_facts"), counted(monkeypatch, document, "load_json")
    with open_artifact(path) as artifact:
        for _ in range(2):
            check_structure(artifact)
        assert artifact.engines[0].info.name == "engine_0"
        assert len(artifact.placeholders) == 1
    assert (len(passes), len(whole)) == (1, 0)


def test_an_artifact_s_constructor_leaves_a_foreign_file_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Foreign().write(tmp_path / "a.pt2")
    searches = counted(monkeypatch, derive, "find_engines")
    with Artifact(path) as artifact:
        assert artifact.foreign
        assert searches == []
        assert len(artifact.engines) == artifact.manifest.files["archive_format"].size - 2 == 1
    assert len(searches) == 1
    assert [refused.path for refused in select(tmp_path).refused] == [path]
    assert len(searches) == 1, "a folder's foreign files are refused unread"
