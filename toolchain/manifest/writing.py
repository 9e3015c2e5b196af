"""Writes a manifest as an entry of an artifact."""

from __future__ import annotations

from toolchain.container.entry_names import MANIFEST_ENTRY
from toolchain.limits import MANIFEST
from toolchain.manifest.models import Manifest


def manifest_entry(manifest: Manifest) -> bytes:
    """Returns a manifest as the bytes of its entry, checked against the readers' limit.

    Raises:
        BuildFailedError: the manifest exceeds the readers' limit.
    """
    data = manifest.to_json().encode()
    MANIFEST.require(data, where=MANIFEST_ENTRY)
    return data
