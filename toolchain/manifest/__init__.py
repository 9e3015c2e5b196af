"""The manifest: what an artifact is, what it needs, and where each of its engines is.

::

    from toolchain import open_artifact
    from toolchain.manifest import Manifest

    with open_artifact("resnet50.pt2") as artifact:
        manifest: Manifest = artifact.manifest
    print(manifest.target.runtime, manifest.coverage.in_engines)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.manifest.models import (
    Aliased,
    Binding,
    BuildRecord,
    CallSpec,
    Coverage,
    DynamicSize,
    EngineEntry,
    FallbackOperator,
    FileEntry,
    Golden,
    Manifest,
    Package,
    PlanFacts,
    Producer,
    ShapeRange,
    SourceModel,
    Span,
    TargetSpec,
    Tolerance,
    ValueSpec,
)
from toolchain.manifest.reading import parse_manifest

if TYPE_CHECKING:
    from toolchain.manifest.schema import json_schema_text

__all__ = [
    "Aliased",
    "Binding",
    "BuildRecord",
    "CallSpec",
    "Coverage",
    "DynamicSize",
    "EngineEntry",
    "FallbackOperator",
    "FileEntry",
    "Golden",
    "Manifest",
    "Package",
    "PlanFacts",
    "Producer",
    "ShapeRange",
    "SourceModel",
    "Span",
    "TargetSpec",
    "Tolerance",
    "ValueSpec",
    "json_schema_text",
    "parse_manifest",
]


def __getattr__(name: str) -> Any:
    # The schema needs pydantic, whose import takes longer than reading a manifest.
    if name == "json_schema_text":
        from toolchain.manifest.schema import json_schema_text

        return json_schema_text
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
