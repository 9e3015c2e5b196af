"""The models of ``matrix.toml``, version 1: models, precisions and targets, as people write them.

``docs/build/matrix.md`` describes every key for people. ``linux_side/schema/matrix-1.json`` is generated from these
models.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, create_model

from linux_side.options import AXES, BuildOptions, Capability, Precision
from toolchain.checker.structure import Level
from toolchain.errors import UsageError
from toolchain.io.toml import parse_toml
from toolchain.options import Options
from toolchain.strict_model import StrictModel
from toolchain.targets import Backend, Platform

SPEC_VERSION = 1


# A name has no hyphen, because hyphens separate the parts of an identifier. The identifier is also a file's name.
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]([a-z0-9_.]*[a-z0-9_])?$", max_length=60)]
Version = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+){0,3}$")]


def settings_of(options: type[Options]) -> Any:
    """Creates a pydantic model of the build options other than the axes, all of them optional."""
    annotated: Any = Annotated
    fields: dict[str, Any] = {}
    for name, field in options.model_fields.items():
        if name not in AXES:
            parts = (field.annotation, *field.metadata)
            kind = annotated[parts] if field.metadata else field.annotation
            fields[name] = (Optional[kind], Field(default=None, description=field.description))  # noqa: UP045
    return create_model("Settings", __base__=StrictModel, **fields)


_Settings: Any = settings_of(BuildOptions)


class BuildSettings(_Settings):
    """Options of ``trtcross build``; those that are not set have its defaults."""

    def chosen(self) -> dict[str, Any]:
        """Returns the options that are set."""
        values = {name: getattr(self, name) for name in BuildSettings.model_fields}
        return {name: value for name, value in values.items() if value is not None}

    def over(self, other: BuildSettings) -> BuildSettings:
        """Returns these settings, with those of ``other`` for options that are not set."""
        return BuildSettings(**{**other.chosen(), **self.chosen()})


class ModelEntry(BuildSettings):
    """A model, with build options of its own."""

    model: str = Field(description="a .pt2 program or module:factory, as `trtcross build` takes it")
    precisions: list[Precision] | None = Field(
        default=None, min_length=1, description="the precisions of this model, in place of the spec's"
    )


class Target(StrictModel):
    """A platform, backend and GPUs that artifacts are built for."""

    platform: Platform = Field(default=Platform.WINDOWS_X86_64, strict=False)
    backend: Backend = Field(default=Backend.TENSORRT_RTX, strict=False)
    version: Version | None = Field(
        default=None, description="TensorRT's version, such as 1.6; the installed one must begin with it"
    )
    gpus: list[Capability] = Field(default_factory=list, description="sm_NN each; empty for TensorRT-RTX's default set")
    accelerator: str | None = Field(
        default=None, description="build on a machine with this GPU, by Ray's name: L4, A10G, H100"
    )
    verify: Level | None = Field(default=None, description="the level to verify to, in place of the spec's")


class Machine(StrictModel):
    """A machine, other than the one that runs the matrix, that a workflow can use."""

    name: Name
    platform: Platform = Field(default=Platform.LINUX_X86_64, strict=False)
    gpus: list[Capability] = Field(default_factory=list)
    backends: dict[Annotated[Backend, Field(strict=False)], Version] = Field(
        default_factory=dict, description="the backends it can build with, such as {tensorrt = '11.1'}"
    )
    runs_on: list[str] = Field(default_factory=list, description="the labels of a workflow runner")


class Exclusion(StrictModel):
    select: str = Field(description="a selector, such as 'vit*-bf16-*'")
    reason: str = Field(default="excluded by the spec", description="the reason that the plan gives")


class Inclusion(Target, BuildSettings):
    """An additional cell."""

    model: Name = Field(description="the name of one of the models")
    precision: Precision


class Spec(StrictModel):
    """The matrix file."""

    version: Literal[1]
    precisions: list[Precision] = Field(default=["fp32"], min_length=1)
    verify: Level = Field(default="structure", description="the level to verify each artifact to")
    build: BuildSettings = Field(default=BuildSettings(), description="build options for every cell")
    models: dict[Name, ModelEntry] = Field(min_length=1)
    targets: list[Target] = Field(min_length=1)
    machines: list[Machine] = Field(default_factory=list)
    exclude: list[Exclusion] = Field(default_factory=list)
    include: list[Inclusion] = Field(default_factory=list)


def load_spec(path: Path) -> Spec:
    """Reads a spec.

    Raises:
        UsageError: the file cannot be read or is not TOML, a key is unknown or missing, or a value is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the spec cannot be read: {error}", where=str(path), remedy="name a matrix.toml") from error
    try:
        document = parse_toml(text)
    except ValueError as error:
        raise UsageError(f"this is not TOML: {error}", where=str(path), remedy="fix that line") from error
    return parse_spec(document, where=str(path))


def parse_spec(document: dict[str, Any], *, where: str) -> Spec:
    """Checks a parsed spec.

    Args:
        document: the parsed TOML.
        where: the spec's file, for errors.

    Raises:
        UsageError: a key is unknown or missing, a value is wrong, or the version is newer. The message lists all
            mistakes.
    """
    version = document.get("version")
    if type(version) is int and version > SPEC_VERSION:
        raise UsageError(
            f"the spec is of version {version}; this trtcross reads up to {SPEC_VERSION}",
            where=where,
            remedy="install a newer trtcross",
        )
    try:
        return Spec.model_validate(document)
    except ValidationError as error:
        problems = [_problem(item) for item in error.errors(include_url=False, include_context=False)]
        raise UsageError(
            "; ".join(problems),
            where=where,
            remedy="docs/build/matrix.md lists the keys, and so does schema/matrix-1.json",
        ) from error


def _problem(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"] if part != "[key]")
    if item["type"] == "extra_forbidden":
        *parents, key = item["loc"]
        known = _keys_at(tuple(parents))
        near = difflib.get_close_matches(str(key).replace("-", "_"), known, 1)
        return f"there is no key {place!r}; " + (f"do you mean {near[0]!r}?" if near else f"known: {', '.join(known)}")
    if item["type"] == "missing":
        return f"the key {place!r} is missing"
    if "[key]" in item["loc"] and item["type"].startswith("string"):
        return f"{place!r} cannot be a name: write it in a-z, 0-9, '_' and '.'; '-' separates the parts of identifiers"
    return f"{place!r}: {item['msg']}"


def _keys_at(location: tuple[Any, ...]) -> list[str]:
    """Returns the keys that a table of the spec may have."""
    model: Any = Spec
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = _bare(model.model_fields[part].annotation)
        else:  # a list's index, or a name in a table
            model = _bare(get_args(model)[-1])
    return list(model.model_fields)


def _bare(kind: Any) -> Any:
    """Returns a type without ``Annotated`` and without None."""
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind = next(item for item in get_args(kind) if item is not NoneType)
    return kind


def spec_schema_text() -> str:
    """Returns the JSON Schema of the spec, the content of ``linux_side/schema/matrix-1.json``."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Spec.model_json_schema()}
    return json.dumps({**schema, "title": "trtcross matrix"}, indent=1, sort_keys=True) + "\n"
