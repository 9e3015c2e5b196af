"""``build_many``: several artifacts of one model, whose common work is done once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from linux_side.driver.building import save_model
from linux_side.driver.child_events import OnEvent
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
    """The outcome of one of several builds.

    Attributes:
        out: the artifact's path.
        options: the build's options.
        artifact: the open artifact; None on an error.
        error: the error; None on success.
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
    """Compiles a model into several artifacts, and does the imports, export and lowering that they share once.

    Each artifact has the bytes that :func:`build` would give it. A build that fails does not end the others.

    Args:
        model: a model as :func:`build` takes it.
        builds: the options of each build, by the ``.pt2`` file to write, as text or a path.
        cache: whether to use the build cache.
        jobs: how many processes run at a time; None for one per processor.
        memory: bytes that they may take together; None for four fifths of the free memory.
        progress: receives the events that :func:`build` reports, with ``out``, the file that they concern. It is called
            from several threads; an event of shared work is reported once for each build. An exception that it raises
            ends all builds and propagates to the caller.
        log: receives what Torch-TensorRT and TensorRT print, build after build.

    Returns:
        The outcome of each build, in the order of ``builds``.

    Raises:
        UsageError: there is no such model, a file cannot be written, or two builds would write the same file.
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
