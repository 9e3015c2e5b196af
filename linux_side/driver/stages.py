"""The options that each stage of a build depends on. Builds that agree on them share the stage's work.

In every build, a stage sees the options that it depends on and the default of every other option. So shared work cannot
depend on an option that is not listed here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from linux_side.options import BuildOptions
from toolchain.targets import Backend

# The stages in order, each with the options that it is the first to read. Later stages may read them too.
STAGES: Mapping[str, tuple[str, ...]] = {
    "import": ("backend",),
    "export": ("task", "dynamic", "golden"),
    "precision": ("precision", "tolerance", "keep_fp32", "precision_plan", "tf32"),
    "lower": ("torch_executed_ops",),
    "convert": ("gpus", "workspace", "min_block_size", "require_full_coverage", "allow_no_engine"),
    "write": ("target", "require_no_torch"),
}
# The last stage that builds can share; `write` makes the bytes of one artifact.
LAST_SHARED = "convert"


def portable(options: BuildOptions) -> bool:
    """Returns whether the backend's engines are the same for every platform and are built without a GPU."""
    return (Backend.TENSORRT_RTX if options.backend == "auto" else Backend(options.backend)).portable


def seen_by(stage: str, options: BuildOptions) -> BuildOptions:
    """Returns the options as a stage sees them: those that it does not depend on have their defaults."""
    names = {name for earlier in _up_to(stage) for name in STAGES[earlier]}
    if not portable(options):
        names.add("target")  # TensorRT's builder needs it
    return BuildOptions(**{name: getattr(options, name) for name in names})


def stage_key(stage: str, model: str, options: BuildOptions) -> str:
    """Returns a key that is equal for builds whose work is the same up to the end of a stage."""
    document = seen_by(stage, options).model_dump(mode="json")
    return json.dumps([None if stage == "import" else model, document], sort_keys=True)


class HasKey(Protocol):
    """A model, in a form that ``trtcross build`` takes, and the options to build it with."""

    @property
    def model(self) -> str: ...

    @property
    def options(self) -> BuildOptions: ...


T = TypeVar("T", bound=HasKey)


def shared_until(builds: Sequence[HasKey]) -> str | None:
    """Returns the last stage that these builds can share, or None if they share nothing."""
    found = None
    for stage in _up_to(LAST_SHARED):
        if len({stage_key(stage, build.model, build.options) for build in builds}) > 1:
            break
        found = stage
    return found


def parted_after(stage: str | None, builds: Iterable[T]) -> list[list[T]]:
    """Groups builds that share everything up to a stage by whether they share the next stage too.

    Args:
        stage: the last stage that all of them share; None before the first.
        builds: the builds to group.

    Returns:
        The groups. After the last stage that can be shared, each build is a group of its own.
    """
    names = list(STAGES)
    following = names[names.index(stage) + 1 if stage else 0]
    if following not in _up_to(LAST_SHARED):
        return [[build] for build in builds]
    parted: dict[str, list[T]] = {}
    for build in builds:
        parted.setdefault(stage_key(following, build.model, build.options), []).append(build)
    return list(parted.values())


def _up_to(stage: str) -> list[str]:
    names = list(STAGES)
    return names[: names.index(stage) + 1]
