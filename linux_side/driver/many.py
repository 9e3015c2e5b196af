"""``build_many``: one model in, several artifacts out; what they share is done once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from linux_side.driver.building import save_model
from linux_side.driver.ear import OnEvent
from linux_side.driver.early_refusals import require_buildable
from linux_side.driver.leaf import Leaf, Outcome
from linux_side.driver.room import default_budget
from linux_side.driver.termination import ends_in_order
from linux_side.driver.tree import StoppedError, Tree
from linux_side.options import BuildOptions
from toolchain.artifact import Artifact
from toolchain.errors import TrtcrossError, UsageError

if TYPE_CHECKING:
    from torch.export import ExportedProgram


@dataclass(frozen=True)
class Built:
    """How one of several builds went.

    Attributes:
        artifact: open; None where there is an error.
    """

    out: Path
    options: BuildOptions
    artifact: Artifact | None
    error: TrtcrossError | None


def build_many(
    model: ExportedProgram | str | os.PathLike[str],
    builds: Mapping[Any, BuildOptions],
    *,
    cache: bool = True,
    jobs: int | None = None,
    memory: int | None = None,
    progress: OnEvent | None = None,
    log: IO[bytes] | None = None,
) -> list[Built]:
    """Compiles a model into several artifacts; imports, export and lowering that they share are done once.

    Each artifact has the bytes that :func:`build` gives it. One that fails does not keep it from the others.

    Args:
        model: as :func:`build` takes it.
        builds: where each ``.pt2`` file goes, as text or a path, and its settings.
        cache: whether to use the build cache.
        jobs: processes at a time; None: one for each processor.
        memory: bytes that they may take together; None: four fifths of what is free.
        progress: sees the events that :func:`build` tells, with ``out``, the file that they are about; from several
            threads, and what builds share once for each. What it raises ends them all, and goes on to the caller.
        log: what Torch-TensorRT and TensorRT print goes here, build after build.

    Returns:
        How each went, in their order.

    Raises:
        UsageError: there is no such model, a place cannot be written to, or two are the same.
    """
    places = {Path(out): options for out, options in builds.items()}
    if len({place.resolve() for place in places}) < len(builds):
        raise UsageError("two builds would write the same file", where="build_many()", remedy="name one for each")
    for place, options in places.items():
        require_buildable(model, place, options)
    raised: list[BaseException] = []

    def listener(out: Path) -> OnEvent:
        def hear(event: dict[str, Any]) -> None:
            try:
                if progress:
                    progress({**event, "out": str(out)})
            except BaseException as error:
                raised.append(error)
                raise StoppedError from error

        return hear

    def finish(leaf: Leaf, outcome: Outcome) -> Built:
        return Built(leaf.out, leaf.options, outcome.artifact, outcome.error)

    with ends_in_order(), tempfile.TemporaryDirectory(prefix="trtcross-") as folder:
        name, path = (None, str(model)) if isinstance(model, (str, os.PathLike)) else save_model(model, Path(folder))
        leaves = [
            Leaf(path, out, options, Path(folder) / f"{index}.log", name=name, cache=cache, listener=listener(out))
            for index, (out, options) in enumerate(places.items())
        ]
        tree = Tree(leaves, finish, workers=jobs or os.cpu_count() or 1, budget=memory or default_budget())
        found: dict[Path, Built] = {}
        try:
            with closing(tree.run()) as done:
                found.update((built.out, built) for built in done)
        except StoppedError:
            if raised:
                raise raised[0] from None
            raise
        for leaf in leaves:
            if log and leaf.log.is_file():
                log.write(f"--- {leaf.out}\n".encode() + leaf.log.read_bytes())
    return [found[out] for out in places]
