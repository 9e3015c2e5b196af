"""The manifest: what an artifact is, what it needs, and where each of its engines lies.

::

    from toolchain import open_artifact
    from toolchain.manifest import Manifest

    with open_artifact("resnet50.pt2") as artifact:
        manifest: Manifest = artifact.manifest
    print(manifest.target.runtime, manifest.coverage.in_engines)
"""

from __future__ import annotations

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
from toolchain.manifest.reading import json_schema_text, parse_manifest

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
