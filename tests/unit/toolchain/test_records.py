"""The manifest's reader accepts and refuses the same documents as pydantic's models of the same classes."""

from __future__ import annotations

import copy
import json
import random
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.conftest import ROOT
from tests.unit.handmade import MANIFEST
from toolchain.manifest.checks import FieldError
from toolchain.manifest.models import (
    ClassSpec,
    DynamicSize,
    Manifest,
    Package,
    PrecisionRecord,
    Span,
    Tolerance,
    ValueSpec,
)
from toolchain.manifest.schema import model_of
from toolchain.targets import Backend

FOLDER = ROOT / "tests" / "compatibility" / "schema1"
WRITTEN = [path for path in sorted(FOLDER.glob("*.json")) if path.stem not in ("manifest-1", "foreign")]
DOCUMENTS = [json.loads(path.read_text("utf-8")) for path in WRITTEN]
PRECISION = {
    "halves": "fp16",
    "in_halves": 3,
    "in_fp32": {"rule": 1},
    "keep_fp32": ["a.*"],
    "errors": [None],
    "warnings": ["w"],
}
CLASSES = [{"spec": "in_spec", "path": [0, 1], "name": "a.B", "fields": ["x"]}]
NEWER = {**copy.deepcopy(MANIFEST), "schema_version": 2, "precision": PRECISION, "classes": CLASSES}
WRONG: list[Any] = [
    None, True, 0, -1, 2.5, "", "x", "1", "sm_86\n", "0" * 64 + "\n", "\n", [], {}, [0], [None], ["x"], {"x": 0},
    {"x": "y"}, 2**63, "2026-11-23T00:00:00", "windows-x86_64", "fp16", 1e308, "x" * 2000, [[0]], "in_spec",
]  # fmt: skip


def _changed(document: Any, rng: random.Random) -> Any:
    """Returns the document with one of its values replaced, removed or doubled."""
    value = copy.deepcopy(document)
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = rng.choice(list(keys))
        child = place[key]
        if isinstance(child, (dict, list)) and child and rng.random() < 0.8:
            place = child
            continue
        kind = rng.randrange(4)
        if kind == 0:
            del place[key]
        elif kind == 1 and isinstance(place, dict):
            place[f"{key}_"] = child
        else:
            place[key] = rng.choice(WRONG)
        return value


def _taken_by_pydantic(document: dict[str, Any]) -> bool:
    fields = {name: value for name, value in document.items() if name != "schema_version"}
    try:
        model_of(Manifest).model_validate(fields)
    except ValidationError:
        return False
    return True


def _taken_by_us(document: dict[str, Any]) -> bool:
    """Whether our reader accepts each field alone: pydantic's models have no rules about several fields."""
    fields = {name: value for name, value in document.items() if name != "schema_version"}
    try:
        Manifest._checked(fields)
    except FieldError:
        return False
    return True


def test_pydantic_takes_and_refuses_the_same_manifests() -> None:
    rng = random.Random(1)
    taken = 0
    for document in [*DOCUMENTS, MANIFEST, NEWER]:
        assert _taken_by_us(document) and _taken_by_pydantic(document)
        for _ in range(300):
            changed = _changed(document, rng)
            ours = _taken_by_us(changed)
            theirs = _taken_by_pydantic(changed)
            # pydantic accepts more forms of a time, numbers among them.
            assert ours == theirs or (theirs and changed["created"] != document["created"]), changed
            taken += ours
    assert taken > 100


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_what_older_releases_wrote_is_written_again_as_it_was(path: Path) -> None:
    text = path.read_text("utf-8").strip()
    assert json.loads(Manifest.model_validate(json.loads(text)).to_json()) == json.loads(text)


@pytest.mark.parametrize(
    ("changes", "path", "problem"),
    [
        ({"model": {"name": "m", "digest": "0" * 63}}, ["model", "digest"], "must match"),
        ({"model": {"name": "m", "digest": "0" * 64, "more": 1}}, ["model", "more"], "no such field"),
        ({"inputs": [{"name": "x", "dtype": None, "device": None, "shape": [1, -1]}]}, ["inputs", 0, "shape", 1], "0"),
        ({"fallback": [{"operator": "o", "count": True, "device": "d"}]}, ["fallback", 0, "count"], "whole number"),
        ({"created": "2026-13-01T00:00:00Z"}, ["created"], "not a time"),
        ({"guards": ["import os"]}, [], "guard"),
        ({"self": 1}, ["self"], "no such field"),
        ({"model": {"name": "m", "digest": "0" * 64, "self": 1}}, ["model", "self"], "no such field"),
    ],
)
def test_an_error_names_the_field(changes: dict[str, Any], path: list[str | int], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        Manifest.model_validate({**MANIFEST, "schema_version": 2, **changes})
    assert getattr(caught.value, "path", []) == path


def test_a_record_is_checked_when_it_is_made_and_does_not_change() -> None:
    span = Span(entry="e", offset=0, length=1)
    assert span == Span(entry="e", offset=0, length=1) != Span(entry="e", offset=1, length=1)
    assert hash(span) == hash(Span(entry="e", offset=0, length=1))
    with pytest.raises(AttributeError, match="frozen"):
        span.offset = 2
    with pytest.raises(FieldError, match="offset: it must be 0 or more"):
        Span(entry="e", offset=-1, length=1)
    with pytest.raises(FieldError, match="max_relative: it is too large"):
        Tolerance(relative_l2=1, max_relative=10**400)
    with pytest.raises(FieldError, match="version"):
        Package(name="x", version="none")
    assert copy.deepcopy(span) == span


def test_values_are_what_their_types_say() -> None:
    manifest = Manifest.model_validate({**MANIFEST, "created": "2026-11-23T10:00:00.5+02:00"})
    assert manifest.created == datetime(2026, 11, 23, 8, 0, 0, 500000, tzinfo=timezone.utc)
    assert manifest.target.backend is Backend.TENSORRT_RTX
    assert manifest.model_copy(update={"created": datetime(2026, 1, 2, tzinfo=timezone.utc)}).model_dump()[
        "created"
    ] == ("2026-01-02T00:00:00Z")
    size = ValueSpec(name="x", dtype="float32", device=None, shape=[1, DynamicSize(symbol="s", min=1, max=None)])
    assert ValueSpec.model_validate(size.model_dump()) == size
    assert ClassSpec.model_validate(CLASSES[0]).model_dump() == CLASSES[0]
    assert PrecisionRecord.model_validate(PRECISION).model_dump() == PRECISION
