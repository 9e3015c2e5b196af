"""What in an artifact would make torch run code from it, refused before torch sees the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from toolchain.artifact import Artifact
from toolchain.errors import MalformedArtifactError, UntrustedError
from toolchain.expressions import is_plain_expression
from toolchain.graph_document import dicts
from toolchain.manifest import MANIFEST_ENTRY
from toolchain.pickle_names import unknown_in_pickle
from toolchain.strict_json import load_json

# Entries that torch reads as data.
_KNOWN = re.compile(
    r"models/model\.json|archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)"
    r"|data/sample_inputs/model\.pt|data/(weights/weight|constants/tensor)_\d+"
    r"|data/(weights/model_weights|constants/model_constants)_config\.json"
    r"|extra/trtcross/manifest\.json|trtcross/golden\.safetensors"
)

_PAYLOAD = re.compile(r"(weight|tensor)_[0-9]+")

# Operators as torch's reader finds them: it takes any attribute of `torch` that can be called, `torch.os.system` too.
_OPERATOR = re.compile(
    r"torch\.ops\.(?!load_library\b|import_module\b|loaded_libraries\b|higher_order\b)[a-z_][A-Za-z0-9_]*"
    r"\.(?!from_file\b)(?:(?!__)[A-Za-z_][A-Za-z0-9_]*|__i?(?:and|or|xor|lshift|rshift)__)\.[A-Za-z][A-Za-z0-9_]*"
    r"|torch\.ops\.higher_order\.(?:cond|while_loop|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|_operator\.(?:getitem|add|sub|mul|floordiv|truediv|mod|neg|pos|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|lshift|rshift)"
    r"|math\.(?:ceil|floor|trunc|sqrt)"
    r"|torch\._?sym_[a-z]+"
)
_FACTORIES = {"builtins.list", "builtins.dict", "builtins.int", "builtins.float", "builtins.set"}
_CONFIG_LIMIT = 8 * 2**20
_VALUE_LIMIT = 500_000


def require_safe_to_load(artifact: Artifact) -> None:
    """Refuses an artifact of which torch would unpickle, evaluate or import a part.

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
    for problem in graph_problems(artifact.graph()):
        raise _untrusted(problem, artifact, "models/model.json")
    for engine in artifact.engines:
        if unknown := unknown_in_pickle(engine.info.metadata):
            raise _untrusted(f"an engine's metadata pickle holds {unknown}", artifact, f"engine {engine.name}")
    for spec in (artifact.manifest.call.in_spec, artifact.manifest.call.out_spec):
        if not is_plain_treespec(spec):
            raise _untrusted("its call names code to import", artifact, MANIFEST_ENTRY)


def is_plain_treespec(text: str) -> bool:
    """Whether a treespec's text names no module to import, as enums and defaultdicts do."""
    try:
        document = load_json(text.encode(), where="treespec", size_limit=2**20, value_limit=100_000)
    except (MalformedArtifactError, UnicodeEncodeError):
        return False
    for value in dicts(document):
        context = value.get("context")
        if isinstance(context, str) and not _is_plain_context(context):
            return False
        if "__enum__" in value or not _is_plain_factory(value):
            return False
    return True


def _is_plain_context(text: str) -> bool:
    try:
        context = load_json(text.encode(), where="treespec", size_limit=2**20, value_limit=100_000)
    except (MalformedArtifactError, UnicodeEncodeError):
        return False
    return all("__enum__" not in value and _is_plain_factory(value) for value in dicts(context))


def _is_plain_factory(value: dict[str, Any]) -> bool:
    if "default_factory_module" not in value:
        return True
    return f"{value['default_factory_module']}.{value.get('default_factory_name')}" in _FACTORIES


def graph_problems(graph: dict[str, Any]) -> Iterator[str]:
    """What in a parsed graph is more than data; a builder asks too, so that it writes nothing that is refused later."""
    if graph.get("guards_code"):
        yield "its graph holds Python code (guards_code)"
    for value in dicts(graph):
        for key, member in value.items():
            if key == "target" and not (isinstance(member, str) and _OPERATOR.fullmatch(member)):
                yield f"a node calls {str(member)[:80]!r}, which is no operator"
            elif key == "expr_str" and not is_plain_expression(str(member)):
                yield f"a size is not a plain expression: {str(member)[:80]!r}"
            elif key in ("in_spec", "out_spec") and not is_plain_treespec(str(member)):
                yield "a call signature names code to import"
            elif key == "metadata" and member and "target" in value:
                yield "a node has metadata, which names code of torch"


def _check_payloads(artifact: Artifact, name: str) -> None:
    document = load_json(
        artifact.read_entry(name, size_limit=_CONFIG_LIMIT),
        where=name,
        size_limit=_CONFIG_LIMIT,
        value_limit=_VALUE_LIMIT,
    )
    payloads = document.get("config") if isinstance(document, dict) else None
    if not isinstance(payloads, dict):
        raise _untrusted("its list of tensors is not one that torch writes", artifact, name)
    for payload in payloads.values():
        path = str(payload.get("path_name")) if isinstance(payload, dict) else ""
        if not _PAYLOAD.fullmatch(path) or payload.get("use_pickle") is not False:
            raise _untrusted("it holds a pickled tensor or object", artifact, f"{name}, {path}")
    for problem in graph_problems(document):
        raise _untrusted(problem, artifact, name)


def _untrusted(problem: str, artifact: Artifact, entry: str) -> UntrustedError:
    return UntrustedError(
        f"the artifact is not safe to load: {problem}",
        where=f"{artifact.path}, entry {entry}",
        remedy="build it again with trtcross, from a model that you trust",
    )
