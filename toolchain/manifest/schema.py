"""Makes pydantic models of the manifest's records, and their JSON Schema. Reading a manifest does not need them."""

from __future__ import annotations

import json
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pydantic

from toolchain.manifest.checks import Bounds, JsonValue
from toolchain.manifest.models import SCHEMA_VERSION, SINCE, Manifest
from toolchain.manifest.records import REQUIRED, FieldSpec, Record
from toolchain.strict_model import StrictModel


@cache
def model_of(record: Any) -> type[StrictModel]:
    """Returns a pydantic model with a record's fields; checks across fields are not part of it."""
    hints = get_type_hints(record, include_extras=True)
    fields: dict[str, Any] = {
        name: (_type_of(hints[name]), _field_of(spec, hints[name])) for name, spec in record.field_specs().items()
    }
    return pydantic.create_model(record.__name__, __base__=StrictModel, __doc__=record.__doc__, **fields)


def _field_of(spec: FieldSpec, hint: Any) -> Any:
    default = ... if spec.default is REQUIRED else spec.default
    # Enums and times are read from strings.
    strict = False if isinstance(hint, type) and issubclass(hint, (Enum, datetime)) else None
    return pydantic.Field(default, description=spec.description, strict=strict, **_settings(spec.bounds))


def _settings(bounds: Bounds) -> dict[str, Any]:
    settings = dict(bounds.settings)
    if settings.pop("finite", False):
        settings["allow_inf_nan"] = False
    if "pattern" in settings:
        settings["pattern"] = f"^{settings['pattern']}$"
    return settings


def _type_of(hint: Any) -> Any:
    if hint is JsonValue:
        return pydantic.JsonValue
    if hint is datetime:
        return pydantic.AwareDatetime
    if isinstance(hint, type) and issubclass(hint, Record):
        record: Any = hint
        return model_of(record)
    args = get_args(hint)
    if get_origin(hint) is Annotated:
        kind, *all_bounds = args
        rules = [pydantic.AfterValidator(_after(bounds.rule)) for bounds in all_bounds if bounds.rule]
        fields = [pydantic.Field(**_settings(bounds)) for bounds in all_bounds if bounds.settings]
        parts = (_type_of(kind), *fields, *rules)
        return Annotated[parts]
    if args and get_origin(hint) in (list, dict):
        return get_origin(hint)[tuple(map(_type_of, args))]
    if args and all(isinstance(arg, type) or get_origin(arg) for arg in args):
        union = _type_of(args[0])
        for arg in args[1:]:
            union = union | _type_of(arg)
        return union
    return hint


def _after(rule: Any) -> Any:
    def validate(value: Any) -> Any:
        rule(value)
        return value

    return validate


def json_schema(version: int) -> dict[str, Any]:
    """Returns the JSON Schema of a manifest version, which is shipped as ``schema/manifest-VERSION.json``."""
    schema = model_of(Manifest).model_json_schema()
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
    """Returns the names of the definitions that a schema refers to, directly or through others."""
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
    """Returns the text of a manifest version's JSON Schema, as in ``toolchain/schema``."""
    return json.dumps(json_schema(version), indent=1, sort_keys=True) + "\n"
