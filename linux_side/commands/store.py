"""``trtcross store``: the build cache, listed, verified and pruned."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import wraps
from typing import Any

import click

from linux_side.cache.lookup import open_checked
from linux_side.cache.store import BuildCache, CacheEntry, surplus
from toolchain.artifact import open_artifact
from toolchain.cli.group import VerbGroup
from toolchain.cli.options import SIZE
from toolchain.cli.output import Output, verb
from toolchain.errors import MalformedArtifactError, TrtcrossError, UsageError
from toolchain.manifest.models import Manifest
from toolchain.progress import working
from toolchain.text import size_text


@click.group(cls=VerbGroup)
def store() -> None:
    """The build cache: list it, check it, and make room.

    It is in the user's cache folder, or in $TRTCROSS_CACHE; $TRTCROSS_CACHE_SIZE is how much it may hold (20 GiB).
    """


def _on_cache(function: Callable[..., None]) -> Callable[..., None]:
    """Passes the cache to a verb, and turns an OSError into a UsageError with a remedy."""

    @wraps(function)
    def call(output: Output, **options: Any) -> None:
        cache = BuildCache()
        output.put(verb=f"store {click.get_current_context().info_name}", folder=str(cache.folder), limit=cache.limit)
        try:
            function(output, cache, **options)
        except OSError as error:
            raise UsageError(
                f"the build cache cannot be used: {error}",
                where=str(cache.folder),
                remedy="fix its permissions or its disk, or name another folder in TRTCROSS_CACHE",
            ) from error

    return call


@store.command("list")
@verb
@_on_cache
def list_entries(output: Output, cache: BuildCache) -> None:
    """List what the cache holds, the most recently used first."""
    entries = cache.entries()[::-1]
    total = sum(entry.size for entry in entries)
    output.say(f"{cache.folder}: {len(entries)} build(s), {size_text(total)} of {size_text(cache.limit)}")
    if not cache.limit:
        output.say("it is off: $TRTCROSS_CACHE_SIZE is 0, so builds are neither looked up nor kept")
    listed = []
    for entry in entries:
        manifest = _manifest(entry)
        listed.append(_to_json(entry, manifest))
        output.say(_line(entry, manifest), level=-1)
    output.put(entries=listed, size=total)


@store.command()
@verb
@_on_cache
def verify(output: Output, cache: BuildCache) -> None:
    """Read every byte of every entry and check it; exit code 4 if one is damaged."""
    states: list[dict[str, Any]] = []
    for entry in cache.entries():
        output.say(f"reading {entry.key} ({size_text(entry.size)})", level=1)
        problem = _problem(cache, entry)
        states.append({"key": entry.key, "sound": problem is None, "problem": problem})
        if problem is not None:
            output.say(f"damaged: {entry.key}: {problem}", level=-1)
    damaged = sum(not state["sound"] for state in states)
    output.put(entries=states)
    if damaged:
        raise MalformedArtifactError(
            f"{damaged} of {len(states)} entries are damaged; a build finds that too and never uses them",
            where=str(cache.folder),
            remedy="trtcross store prune --damaged",
        )
    output.say(f"{len(states)} build(s), every byte checked")


@store.command()
@click.option("--all", "everything", is_flag=True, help="Remove every entry.")
@click.option("--damaged", is_flag=True, help="Remove entries with a damaged byte; reads all of them.")
@click.option("--older-than", type=click.IntRange(0), metavar="DAYS", help="Remove what was not used for so long.")
@click.option("--max-size", type=SIZE, help="Remove the least recently used down to it: 5GiB (or 5G), 5GB is decimal.")
@verb
@_on_cache
def prune(
    output: Output,
    cache: BuildCache,
    everything: bool,
    damaged: bool,
    older_than: int | None,
    max_size: int | None,
) -> None:
    """Remove entries, and partial ones of killed builds; without options, those over the cache's limit."""
    limit = cache.limit if max_size is None else max_size
    last = None if older_than is None else datetime.now(timezone.utc) - timedelta(days=older_than)

    def unwanted(entry: CacheEntry) -> bool:
        old = last is not None and entry.used <= last
        return everything or old or (damaged and _problem(cache, entry) is not None)

    entries = cache.entries()
    chosen = [entry for entry in entries if unwanted(entry)]
    removed = cache.remove([*chosen, *surplus([entry for entry in entries if entry not in chosen], limit)])
    if everything:
        cache.remove_notes()
    freed = sum(entry.size for entry in removed)
    for entry in removed:
        output.say(f"removed {entry.key} ({size_text(entry.size)})")
    output.put(removed=[entry.key for entry in removed], freed=freed)
    output.say(f"{len(removed)} build(s) removed, {size_text(freed)} freed")


def _manifest(entry: CacheEntry) -> Manifest | None:
    try:
        with open_artifact(entry.artifact) as artifact:
            return artifact.manifest
    except (TrtcrossError, OSError):
        return None


def _problem(cache: BuildCache, entry: CacheEntry) -> str | None:
    """Returns what is wrong with an entry; None if it is sound or was removed meanwhile."""
    try:
        with working(f"reading {entry.key[:12]}", entry.size):
            open_checked(entry).close()
    except TrtcrossError as error:
        return error.problem if cache.holds(entry) else None
    return None


_SHOWN = ("created", "model", "settings", "target", "producer")


def _to_json(entry: CacheEntry, manifest: Manifest | None) -> dict[str, Any]:
    return {
        "key": entry.key,
        "artifact": str(entry.artifact),
        "size": entry.size,
        "used": entry.used.isoformat(),
        "readable": manifest is not None,
        **({name: value for name, value in manifest.model_dump().items() if name in _SHOWN} if manifest else {}),
    }


def _line(entry: CacheEntry, manifest: Manifest | None) -> str:
    what = "damaged"
    if manifest:
        target = manifest.target
        precision = manifest.settings.get("precision") or "as exported"
        gpus = " ".join(target.compute_capabilities)
        runtime = f"{target.backend.value} {target.runtime}"
        what = f"{manifest.model.name}, {precision}, {target.platform.value}, {runtime}, {gpus}"
    return f"{entry.key[:12]}  {entry.used.astimezone():%Y-%m-%d %H:%M}  {size_text(entry.size):>10}  {what}"
