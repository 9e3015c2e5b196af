"""Fuzzes one target by libFuzzer: ``python -m tests.fuzz.fuzz_one TARGET [libFuzzer's options and folders]``."""

from __future__ import annotations

import sys

import atheris

from tests.fuzz.mutate import mutate_json

with atheris.instrument_imports(include=["toolchain", "tests.fuzz.targets"]):
    from tests.fuzz.targets import TARGETS


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Mutates an input: half of the manifests stay valid JSON; all others get libFuzzer's own mutation."""
    changed = mutate_json(data, seed) if seed % 2 else None
    if changed is not None and len(changed) <= max_size:
        return changed
    return bytes(atheris.Mutate(data, max_size))


def main() -> None:
    name, arguments = sys.argv[1], [sys.argv[0], *sys.argv[2:]]
    mutator = {"custom_mutator": mutate} if name == "manifest" else {}
    atheris.Setup(arguments, TARGETS[name], **mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
