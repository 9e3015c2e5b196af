"""Names of a container's entries: plain relative paths below one root folder, valid on every operating system."""

from __future__ import annotations

from toolchain.limits import ENTRY_NAME

ROOT = "artifact"

MANIFEST_ENTRY = "extra/trtcross/manifest.json"
GOLDEN_ENTRY = "trtcross/golden.safetensors"
GRAPH_ENTRY = "models/model.json"
SAMPLE_INPUTS_ENTRY = "data/sample_inputs/model.pt"
# torch's lists of a program's weights and constants, with the place, dtype, sizes and device of each.
TENSOR_LISTS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")


def is_tensor_list(name: str) -> bool:
    """Whether an entry is a list, in JSON, of the tensors that stay in PyTorch."""
    return name in TENSOR_LISTS


_DEVICES = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}


def name_problem(name: str) -> str | None:
    """Describes why an entry cannot have this name; None if it is a plain relative path, on Windows too."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "is not a path below a root folder"
    if any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 or c in '\\:*?"<>|' for c in name):
        return "holds a character that is not allowed"
    if any(part.split(".")[0].rstrip(" ").casefold() in _DEVICES or part[-1] in ". " for part in parts):
        return "cannot be a file's on Windows"
    return ENTRY_NAME.excess(len(name.encode()))
