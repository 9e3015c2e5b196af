"""What each stage of a build depends on: builds that agree on it share the stage's work, and no others do.

A stage is given the options that it depends on and sees the default of every other, in each build, so that work that
is shared cannot depend on an option that is not named here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from linux_side.options import BuildOptions
from toolchain.targets import Backend

# In their order, each with the options that it is the first to read; those after it may read them too.
STAGES: Mapping[str, tuple[str, ...]] = {
    "import": ("backend",),
    "export": ("task", "dynamic", "golden"),
    "precision": ("precision", "tolerance", "keep_fp32", "precision_plan", "tf32"),
    "lower": ("torch_executed_ops",),
    "convert": ("gpus", "workspace", "min_block_size", "require_full_coverage", "allow_no_engine"),
    "write": ("target", "require_no_torch"),
}
# The last one whose work builds can share: one artifact's bytes are nobody else's.
LAST_SHARED = "convert"


def portable(options: BuildOptions) -> bool:
    """Whether the backend's engines are the same for every platform, and built without a GPU."""
    return (Backend.TENSORRT_RTX if options.backend == "auto" else Backend(options.backend)).portable


def seen_by(stage: str, options: BuildOptions) -> BuildOptions:
    """The options as a stage sees them: what it does not depend on has its default."""
    names = {name for earlier in _up_to(stage) for name in STAGES[earlier]}
    if not portable(options):
        names.add("target")  # TensorRT's builder is told of it
    return BuildOptions(**{name: getattr(options, name) for name in names})


def stage_key(stage: str, model: str, options: BuildOptions) -> str:
    """The same for builds whose work is the same up to the end of a stage."""
    document = seen_by(stage, options).model_dump(mode="json")
    return json.dumps([None if stage == "import" else model, document], sort_keys=True)


class HasKey(Protocol):
    """What is built: a model, as ``trtcross build`` is given it, with options."""

    @property
    def model(self) -> str: ...

    @property
    def options(self) -> BuildOptions: ...


T = TypeVar("T", bound=HasKey)


def shared_until(builds: Sequence[HasKey]) -> str | None:
    """The last stage up to whose end these builds are the same; None where they share nothing."""
    found = None
    for stage in _up_to(LAST_SHARED):
        if len({stage_key(stage, build.model, build.options) for build in builds}) > 1:
            break
        found = stage
    return found


def parted_after(stage: str | None, builds: Iterable[T]) -> list[list[T]]:
    """Builds that share everything up to a stage, in groups of those that share the next one too."""
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
