"""Fetches builds from the cache and stores builds in it. A cache that does not work never fails a build."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from linux_side.cache.store import BuildCache, CacheEntry
from toolchain.artifact import Artifact, open_artifact
from toolchain.container.entry_names import MANIFEST_ENTRY
from toolchain.container.writer import ContainerWriter
from toolchain.errors import MalformedArtifactError, TrtcrossError, UsageError
from toolchain.manifest.models import BuildRecord
from toolchain.manifest.writing import manifest_entry
from toolchain.text import size_text

# Receives one line of text about a problem that did not end the build.
Warn = Callable[[str], None]


def fetch(cache: BuildCache, key: str, out: Path, seconds: dict[str, float], warn: Warn) -> bool:
    """Writes the artifact of a key to ``out``, with ``created`` and ``build`` of its manifest renewed.

    Every byte of the entry is checked first; a damaged entry is removed.

    Args:
        cache: where to look.
        key: the build's key.
        out: the file to write; an existing one is replaced.
        seconds: the seconds that this build has taken so far, by phase.
        warn: receives the reason if the cache has the entry and cannot be used.

    Returns:
        Whether the artifact was written.

    Raises:
        BuildFailedError: ``out`` cannot be written.
    """
    entry = None
    try:
        entry = cache.find(key)
        if entry is None:
            return False
        cache.touch(entry)
        with open_checked(entry) as artifact:
            _write(artifact, out, BuildRecord(seconds=seconds, cache_key=key, from_cache=True))
    except MalformedArtifactError as error:
        if entry and cache.holds(entry):  # else it was removed while it was read
            warn(f"a damaged entry of the build cache is built again ({key[:12]}: {error.problem})")
            _remove(cache, entry, warn)
        return False
    except (OSError, UsageError) as error:
        if entry is None or cache.holds(entry):
            warn(f"this is built without the build cache, which cannot be read: {_words(error)}")
        return False
    return True


def keep(cache: BuildCache, artifact: Artifact, warn: Warn) -> None:
    """Stores a finished build in the cache, or warns why it cannot. A build without a key is not stored."""
    key, size = artifact.manifest.build.cache_key, artifact.container.size
    if key is None:
        return
    try:
        if not cache.add(key, artifact.path):
            warn(
                f"this build is not kept in the build cache: it has {size_text(size)}, and the cache's limit is "
                f"{size_text(cache.limit)}"
            )
    except OSError as error:
        warn(f"this build is not kept in the build cache, which cannot be written to: {_words(error)}")


def open_checked(entry: CacheEntry) -> Artifact:
    """Opens an entry's artifact after reading and checking every byte of it.

    Raises:
        MalformedArtifactError: the artifact is damaged or missing, or belongs to another key.
        UsageError: the file cannot be opened, for example for lack of permission.
    """
    if not entry.artifact.exists():
        raise MalformedArtifactError("its artifact is missing", where=str(entry.folder))
    artifact = open_artifact(entry.artifact)
    try:
        if artifact.manifest.build.cache_key != entry.key:
            raise MalformedArtifactError("it is the build of another key", where=str(entry.folder))
        artifact.check_integrity()
    except OSError as error:  # the disk fails
        artifact.close()
        raise MalformedArtifactError(f"it cannot be read: {error}", where=str(entry.artifact)) from error
    except BaseException:
        artifact.close()
        raise
    return artifact


def _write(artifact: Artifact, out: Path, build: BuildRecord) -> None:
    manifest = artifact.manifest.model_copy(update={"created": datetime.now(timezone.utc), "build": build})
    with ContainerWriter(out) as writer:
        for name in artifact.container.entries:
            if name != MANIFEST_ENTRY:
                writer.copy(artifact.container, name)
        writer.add(MANIFEST_ENTRY, manifest_entry(manifest))
        artifact.container.check_unchanged()


def _remove(cache: BuildCache, entry: CacheEntry, warn: Warn) -> None:
    try:
        cache.remove([entry])
    except OSError as error:
        warn(f"the damaged entry could not be removed: {_words(error)}")


def _words(error: Exception) -> str:
    if isinstance(error, TrtcrossError):
        return f"{error.problem} ({error.where})"
    return str(error)
