"""The manifest as an entry of an artifact."""

from __future__ import annotations

from toolchain.container.entry_names import MANIFEST_ENTRY
from toolchain.limits import MANIFEST
from toolchain.manifest.models import Manifest


def manifest_entry(manifest: Manifest) -> bytes:
    """The entry's bytes.

    Raises:
        BuildFailedError: it is longer than any reader takes.
    """
    data = manifest.to_json().encode()
    MANIFEST.require(data, where=MANIFEST_ENTRY)
    return data
