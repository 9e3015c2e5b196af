"""What in an artifact would make torch run code from it, refused before torch sees the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from toolchain.artifact import Artifact
from toolchain.errors import UntrustedError
from toolchain.strict_json import load_json

# Entries that torch reads as data.
_KNOWN = re.compile(
    r"models/model\.json|archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)"
    r"|data/sample_inputs/model\.pt|data/(weights/weight|constants/tensor)_\d+"
    r"|data/(weights/model_weights|constants/model_constants)_config\.json"
    r"|extra/trtcross/manifest\.json|trtcross/golden\.safetensors"
)

# torch gives these strings to sympy, which evaluates them: names, numbers, + - * / and calls of known functions.
_FUNCTIONS = {
    "Symbol", "Integer", "Add", "Mul", "Pow", "Max", "Min", "Mod", "FloorDiv", "CeilDiv", "PythonMod", "CleanDiv",
    "ModularIndexing", "Where", "Identity", "RoundToInt", "TruncToInt", "IntTrueDiv", "FloatTrueDiv", "CeilToInt",
    "FloorToInt", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "True", "False", "positive", "integer", "nonnegative",
    "floor", "ceiling",
}  # fmt: skip
_TOKEN = re.compile(r"'[A-Za-z_][A-Za-z0-9_]*'|[A-Za-z_][A-Za-z0-9_]*|\d+|[-+*/(),= ]|<=|>=|[<>]")
_SYMBOL = re.compile(r"[su]\d+|zu?f\d+|u\d+")


def require_safe_to_load(artifact: Artifact) -> None:
    """Refuses an artifact of which torch would unpickle or evaluate a part.

    Raises:
        UntrustedError: with the entry that is not plain data.
    """
    for name, entry in artifact.container.entries.items():
        if not _KNOWN.fullmatch(name):
            raise _untrusted("torch may run code from an entry that trtcross does not write", artifact, name)
        if name == "data/sample_inputs/model.pt" and entry.size:
            raise _untrusted("it holds pickled sample inputs", artifact, name)
        if name.endswith("_config.json"):
            _check_payloads(artifact, name)
    graph = artifact.graph()
    if graph.get("guards_code"):
        raise _untrusted("its graph holds Python code (guards_code)", artifact, "models/model.json")
    for text in _expressions(graph):
        if not is_plain_expression(text):
            raise _untrusted(f"a size is not a plain expression: {text[:80]!r}", artifact, "models/model.json")


def is_plain_expression(text: str) -> bool:
    """Whether a symbolic size is built of names, numbers, arithmetic and known functions alone."""
    position = 0
    for match in _TOKEN.finditer(text):
        if match.start() != position:
            return False
        position = match.end()
        word = match.group()
        if word[0].isalpha() and word not in _FUNCTIONS and not _SYMBOL.fullmatch(word):
            return False
    return position == len(text) and len(text) < 10_000


def _check_payloads(artifact: Artifact, name: str) -> None:
    document = load_json(artifact.read_entry(name), where=name, size_limit=64 * 2**20)
    payloads = document.get("config") if isinstance(document, dict) else None
    if not isinstance(payloads, dict):
        raise _untrusted("its list of tensors is not one that torch writes", artifact, name)
    for payload in payloads.values():
        path = str(payload.get("path_name")) if isinstance(payload, dict) else ""
        if not path.startswith(("weight_", "tensor_")) or payload.get("use_pickle") is not False:
            raise _untrusted("it holds a pickled tensor or object", artifact, f"{name}, {path}")


def _expressions(value: Any) -> Iterator[str]:
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            for key, member in value.items():
                if key == "expr_str":
                    yield str(member)
                else:
                    pending.append(member)
        elif isinstance(value, list):
            pending.extend(value)


def _untrusted(problem: str, artifact: Artifact, entry: str) -> UntrustedError:
    return UntrustedError(
        f"the artifact is not safe to load: {problem}",
        where=f"{artifact.path}, entry {entry}",
        remedy="build it again with trtcross, from a model that you trust",
    )
