"""Refuses an artifact from which torch would run code, before torch reads the file."""

from __future__ import annotations

import re
from collections.abc import Iterator

from toolchain.artifact import Artifact
from toolchain.checker.graph import graph_problems, is_plain_treespec
from toolchain.container.entry_names import GRAPH_ENTRY, MANIFEST_ENTRY, SAMPLE_INPUTS_ENTRY, is_tensor_list
from toolchain.engine.metadata_allowlist import unknown_in_pickle
from toolchain.engine.metadata_reader import PickleError, read_metadata
from toolchain.errors import UntrustedError, UsageError
from toolchain.graph.facts import claims_of
from toolchain.io.strict_json import load_json
from toolchain.limits import TENSOR_LIST
from toolchain.manifest.models import TRUST

# Entries that torch reads as data.
_DATA_ENTRIES = re.compile(
    r"models/model\.json|archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)"
    r"|data/sample_inputs/model\.pt|data/(weights/weight|constants/tensor)_\d+"
    r"|data/(weights/model_weights|constants/model_constants)_config\.json"
    r"|extra/trtcross/manifest\.json|trtcross/golden\.safetensors"
)

_PAYLOAD = re.compile(r"(weight|tensor)_[0-9]+")


def require_safe_to_load(artifact: Artifact, trust: str | None = None) -> None:
    """Refuses an artifact if torch would unpickle, evaluate or import a part of it.

    Args:
        artifact: the artifact to check.
        trust: why the artifact is accepted all the same. A reason counts only for a foreign artifact, and for one
            that was converted from a foreign one with a reason.

    Raises:
        UntrustedError: an entry is not plain data.
        UsageError: the reason is empty.
    """
    _require(artifact, unsafe_parts(artifact), trust)


def require_safe_to_convert(artifact: Artifact, trust: str | None = None) -> None:
    """Refuses a foreign artifact whose conversion could not be loaded; pickled sample inputs pass: none are copied.

    Args:
        artifact: the artifact to convert.
        trust: why it is accepted all the same.

    Raises:
        UntrustedError: an entry is not plain data.
        UsageError: the reason is empty.
    """
    _require(artifact, (part for part in unsafe_parts(artifact) if part[1] != SAMPLE_INPUTS_ENTRY), trust)


def _require(artifact: Artifact, unsafe: Iterator[tuple[str, str]], trust: str | None) -> None:
    _check_reason(trust)
    for problem, entry in unsafe:
        foreign = artifact.foreign or TRUST in artifact.manifest.settings
        if trust is None or not foreign:
            raise _untrusted(problem, artifact, entry, foreign)


def _check_reason(trust: str | None) -> None:
    if trust is not None and not trust.strip():
        raise UsageError("no reason is given", where="--trust", remedy="say why the file is trusted; it is recorded")


def unsafe_parts(artifact: Artifact) -> Iterator[tuple[str, str]]:
    """Yields what is more than data in an artifact, each with its entry."""
    for name, entry in artifact.container.entries.items():
        if not _DATA_ENTRIES.fullmatch(name):
            yield "torch may run code from an entry that trtcross does not write", name
        if name == SAMPLE_INPUTS_ENTRY and entry.size:
            yield "it holds pickled sample inputs", name
        if is_tensor_list(name):
            yield from _unsafe_payloads(artifact, name)
    for problem in graph_problems(artifact.graph_facts.claims):
        yield problem, GRAPH_ENTRY
    for engine in artifact.engines:
        if unknown := _unknown_in_metadata(artifact, engine.info.metadata):
            yield f"an engine's metadata pickle holds {unknown}", f"engine {engine.name}"
    for spec in (artifact.manifest.call.in_spec, artifact.manifest.call.out_spec):
        if not is_plain_treespec(spec):
            yield "its call names code to import", GRAPH_ENTRY if artifact.foreign else MANIFEST_ENTRY


def _unknown_in_metadata(artifact: Artifact, text: str) -> str | None:
    """Describes what a metadata pickle holds beyond the allowed names; None if there is nothing.

    Torch-TensorRT's own metadata names more than ours. It is never unpickled, neither here nor in ``load``.
    """
    if not artifact.foreign:
        return unknown_in_pickle(text)
    try:
        read_metadata(text)
    except PickleError as error:
        return str(error)
    return None


def _unsafe_payloads(artifact: Artifact, name: str) -> Iterator[tuple[str, str]]:
    document = load_json(artifact.read_entry(name, size_limit=TENSOR_LIST.size), where=name, limit=TENSOR_LIST)
    payloads = document.get("config") if isinstance(document, dict) else None
    if not isinstance(payloads, dict):
        yield "its list of tensors is not one that torch writes", name
        return
    for payload in payloads.values():
        path = str(payload.get("path_name")) if isinstance(payload, dict) else ""
        if not _PAYLOAD.fullmatch(path) or payload.get("use_pickle") is not False:
            yield "it holds a pickled tensor or object", f"{name}, {path}"
    for problem in graph_problems(claims_of(document, where=name)):
        yield problem, name


def _untrusted(problem: str, artifact: Artifact, entry: str, foreign: bool) -> UntrustedError:
    remedy = "build it again with trtcross, from a model that you trust"
    if foreign:
        remedy += "; or, if you know who made it, say why you trust it: --trust REASON"
    if entry == SAMPLE_INPUTS_ENTRY:
        remedy = "trtcross convert makes an artifact of it without them; " + remedy
    return UntrustedError(
        f"the artifact is not safe to load: {problem}", where=f"{artifact.path}, entry {entry}", remedy=remedy
    )
