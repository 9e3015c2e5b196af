"""Reading a manifest, and its JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from toolchain.engine.info import CONTROL
from toolchain.errors import MalformedArtifactError
from toolchain.io.strict_json import load_json
from toolchain.limits import MANIFEST
from toolchain.manifest.models import SCHEMA_VERSION, SINCE, Manifest


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """Reads a manifest.

    Raises:
        MalformedArtifactError: not JSON, a newer schema version, an unknown or missing field, a wrong type.
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
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])[:200]
        raise MalformedArtifactError(
            f"the manifest's field {field!r} is wrong: {first['msg']}",
            where=where,
        ) from error


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


def json_schema(version: int) -> dict[str, Any]:
    """The JSON Schema of a manifest of this version, as shipped in ``schema/manifest-VERSION.json``."""
    schema = Manifest.model_json_schema()
    for name, since in SINCE.items():
        if since > version:
            del schema["properties"][name]
    schema["properties"]["schema_version"] = {
        "const": version,
        "default": version,
        "title": "Schema Version",
        "type": "integer",
    }
    schema["required"] = ["schema_version", *schema["required"]]
    definitions = schema.pop("$defs")
    schema["$defs"] = {name: definitions[name] for name in _referenced(schema, definitions)}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "trtcross manifest", **schema}


def _referenced(schema: Any, definitions: dict[str, Any]) -> set[str]:
    """The definitions that a schema refers to, by itself or through others."""
    found: set[str] = set()
    pending = [schema]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).removeprefix("#/$defs/")
            if name in definitions and name not in found:
                found.add(name)
                pending.append(definitions[name])
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return found


def json_schema_text(version: int = SCHEMA_VERSION) -> str:
    return json.dumps(json_schema(version), indent=1, sort_keys=True) + "\n"
