"""Parses a manifest and refuses what its schema does not allow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolchain.engine.info import CONTROL
from toolchain.errors import MalformedArtifactError
from toolchain.io.strict_json import load_json
from toolchain.limits import MANIFEST
from toolchain.manifest.checks import FieldError
from toolchain.manifest.models import SCHEMA_VERSION, Manifest


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """Parses a manifest of any schema version up to this release's, strictly.

    Args:
        data: the manifest's bytes.
        where: the file and entry, for errors.

    Raises:
        MalformedArtifactError: the bytes are not JSON, the schema version is newer than this release, a text holds
            control characters, or a field is missing, unknown or wrong.
    """
    document = load_json(data, where=where, limit=MANIFEST)
    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is not int or version < 1:
        raise MalformedArtifactError(
            f"the manifest's schema_version is {str(version)[:80]!r}, not a number from 1 on",
            where=where,
        )
    if version > SCHEMA_VERSION:
        raise MalformedArtifactError(
            f"the manifest is of schema version {version}; this trtcross reads up to {SCHEMA_VERSION}",
            where=where,
            remedy="install a newer trtcross, or build the artifact again with this one",
        )
    if text := next(filter(CONTROL.search, _texts(document)), None):
        raise MalformedArtifactError(
            f"the manifest's text {text[:80]!r} holds control characters",
            where=where,
        )
    try:
        return Manifest.model_validate(document)
    except FieldError as error:
        field = ".".join(map(str, error.path))[:200]
        raise MalformedArtifactError(
            f"the manifest's field {field!r} is wrong: {error.problem}", where=where
        ) from error
    except ValueError as error:  # fields that contradict each other
        raise MalformedArtifactError(f"the manifest is wrong: {error}", where=where) from error


def _texts(document: Any) -> Iterator[str]:
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            pending += [*value, *value.values()]
        elif isinstance(value, list):
            pending += value
