"""Runs several builds at once within a memory budget, and does the stages that some of them share once.

The builds are the leaves of a tree. A node is a process that runs the stages that all builds below it share, and is
then forked for the next nodes or for the builds. A build that shares nothing, or whose node cannot be forked, runs in a
process of its own, as with ``build``.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from linux_side.driver.alone import Alone, too_long
from linux_side.driver.building import Prepared
from linux_side.driver.child_events import ChildEvents, OnEvent, remove_parts
from linux_side.driver.forks import Ended, Fork, Root, Server
from linux_side.driver.leaf import Leaf, Outcome
from linux_side.driver.room import INHERITED
from linux_side.driver.stages import parted_after, portable, shared_until
from toolchain.errors import BuildFailedError, ProcessEnd, TrtcrossError, error_from_json

R = TypeVar("R")


class StoppedError(Exception):
    """All builds were stopped before this one began."""


@dataclass(eq=False)
class _Node:
    """A process that waits to be forked.

    Attributes:
        server: the connection to it.
        stage: the last stage done; None for the first process, in which none is.
        parent: the node that it was forked from.
        log: the file with what it has printed.
        held: its private memory, in bytes.
        peak: the peak in bytes of a single process that had done the same stages from the beginning.
        left: how many builds below it are not done yet.
    """

    server: Server
    stage: str | None = None
    parent: _Node | None = None
    log: Path | None = None
    held: int = 0
    peak: int = 0
    left: int = 0

    def peak_with(self, own: int) -> int:
        """Returns the peak of a single process that had done these stages and then took ``own`` bytes more."""
        return max(self.peak, sum(node.held for node in self.line) + own)

    @property
    def line(self) -> list[_Node]:
        """The nodes from the first one down to this one."""
        return [*(self.parent.line if self.parent else []), self]


@dataclass(eq=False)
class _Work(Generic[R]):
    """One piece of work for a thread.

    Attributes:
        run: does the work; returns the work that follows from it and the results of finished builds.
        memory: the bytes that it is expected to take.
        node: the node that it belongs to.
    """

    run: Callable[[], tuple[list[_Work[R]], list[R]]]
    memory: int
    node: _Node | None = None

    @property
    def rank(self) -> tuple[int, int]:
        """The highest rank goes first: the deepest work, which frees its nodes soonest, and then the biggest."""
        return len(self.node.line) if self.node else 0, self.memory


class Tree(Generic[R]):
    """Runs builds.

    Args:
        leaves: the builds.
        finish: called with each finished build and its outcome, in the thread that ran it. The tree yields its result.
        workers: how many processes run at a time.
        budget: bytes that they may take together. A build that is expected to take more runs alone.
        timeout: seconds that a process may take; None for no limit.
    """

    def __init__(
        self,
        leaves: Sequence[Leaf],
        finish: Callable[[Leaf, Outcome], R],
        *,
        workers: int,
        budget: int,
        timeout: float | None = None,
    ) -> None:
        self._leaves, self._finish = leaves, finish
        self._workers, self._budget, self._timeout = workers, budget, timeout
        self._nodes: list[_Node] = []
        self._processes: set[Fork | Alone] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self) -> Generator[R, None, None]:
        """Yields each build's result as soon as it is done. Closing the generator kills the running processes."""
        with tempfile.TemporaryDirectory(prefix="trtcross-") as folder, ThreadPoolExecutor(self._workers) as pool:
            self._folder, self._prepared = Path(folder), list[Leaf]()
            root: Root | None = None
            try:
                yield from self._work_off(pool, [self._look(leaf) for leaf in self._leaves])
                self._prepared.sort(key=self._leaves.index)
                groups = parted_after(None, self._prepared)
                if any(map(_share, groups)):
                    root = Root(self._folder)
                first = _Node(root.server, left=len(self._prepared)) if root else None
                yield from self._work_off(pool, [self._branch(group, first) for group in groups])
            finally:
                self._stop()
                if root:
                    root.close()

    def _work_off(self, pool: ThreadPoolExecutor, works: Iterable[list[_Work[R]]]) -> Generator[R, None, None]:
        waiting = [work for several in works for work in several]
        running: dict[Future[tuple[list[_Work[R]], list[R]]], _Work[R]] = {}
        while waiting or running:
            while (work := self._next(waiting, list(running.values()))) is not None:
                waiting.remove(work)
                running[pool.submit(work.run)] = work
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                work = running.pop(future)
                more, results = future.result()
                waiting += more
                self._count(work.node, len(results))
                yield from results

    def _next(self, waiting: Sequence[_Work[R]], running: Sequence[_Work[R]]) -> _Work[R] | None:
        if len(running) >= self._workers:
            return None
        left = self._budget - sum(work.memory for work in running) - sum(node.held for node in self._nodes)
        in_order = sorted(waiting, key=lambda work: work.rank, reverse=True)
        return next((work for work in in_order if work.memory <= left or not running), None)

    def _count(self, node: _Node | None, done: int) -> None:
        """Subtracts finished builds from a node and those above it, and closes nodes with none left."""
        for above in node.line if node else []:
            above.left -= done
            if not above.left and above in self._nodes:
                above.server.close()
                self._nodes.remove(above)

    def _look(self, leaf: Leaf) -> list[_Work[R]]:
        """Returns the work of checking a build's options and looking for it in the cache, which needs no process."""

        def look() -> Outcome:
            spool = Path(tempfile.mkdtemp(dir=self._folder))
            leaf.prepared = Prepared(
                leaf.model, leaf.out, leaf.options, spool, cache=leaf.cache, name=leaf.name, listener=leaf.listener
            )
            return Outcome(leaf.prepared.from_cache(), None)

        def run() -> tuple[list[_Work[R]], list[R]]:
            outcome = _outcome(look)
            if outcome.artifact or outcome.error:
                return [], [self._finish(leaf, outcome)]
            with self._lock:
                self._prepared.append(leaf)
            return [], []

        return [_Work(run, 0)]

    def _branch(self, leaves: list[Leaf], node: _Node | None) -> list[_Work[R]]:
        """Returns the next work of builds: one shared stage if there are several builds, otherwise the build itself."""
        if node and _share(leaves):
            return [_Work(lambda: self._grow(leaves, node), max(_memory(leaf, node) for leaf in leaves), node)]
        return [self._leaf(leaf, node) for leaf in leaves]

    def _leaf(self, leaf: Leaf, node: _Node | None, alone: str | None = None) -> _Work[R]:
        """Returns the work of one build to its end.

        Args:
            leaf: the build.
            node: the node to fork it from, if it has done a stage.
            alone: the reason why the build must run in a process that shares nothing; None if it may be forked.
        """
        forked = node if node and node.stage and alone is None else None

        def run() -> tuple[list[_Work[R]], list[R]]:
            outcome = _outcome(lambda: self._forked(leaf, forked) if forked else self._alone(leaf, alone))
            return [], [self._finish(leaf, outcome)]

        return _Work(run, _memory(leaf, forked), node)

    def _done(self, leaf: Leaf, error: TrtcrossError | None, node: _Node) -> _Work[R]:
        """Returns the work of finishing a build that its node has already built or failed."""

        def run() -> tuple[list[_Work[R]], list[R]]:
            outcome = Outcome(None, error) if error else _outcome(lambda: Outcome(leaf.prepared.finished(), None))
            return [], [self._finish(leaf, outcome)]

        return _Work(run, 0, node)

    def _grow(self, leaves: list[Leaf], node: _Node) -> tuple[list[_Work[R]], list[R]]:
        """Runs the stages that builds share, in a process that then waits to be forked.

        Returns:
            The work that follows, and no results.
        """
        by_out = {str(leaf.out): leaf for leaf in leaves}
        stage, log = shared_until(leaves), Path(tempfile.mkdtemp(dir=self._folder)) / "log"
        errors: dict[str, TrtcrossError] = {}
        ready: dict[str, Any] = {}
        failed: list[TrtcrossError] = []

        def hear(event: dict[str, Any]) -> None:
            if event["event"] == "ready":
                ready.update(event)
            elif event["event"] == "error":
                failed.append(error_from_json(event["error"]))
            elif event["event"] == "refused":
                errors[event["out"]] = error_from_json(event["error"])
            elif (
                stage != "import" or event["event"] == "warning"
            ):  # the shared import belongs to no build in particular
                out = event.pop("out", None)
                for leaf in [by_out[out]] if out else leaves:
                    leaf.prepared.report(event)

        try:
            with log.open("w+b") as file:
                fork, ended = self._follow(leaves, node, stage, file, hear)
        except OSError as error:
            return [
                self._leaf(leaf, node, f"the process that it would share cannot be: {error}") for leaf in leaves
            ], []
        if failed or ended.timed_out:
            problem = failed[0] if failed else too_long(ended.ended, self._timeout)
            for leaf in leaves:
                with leaf.log.open("ab") as own:
                    own.write(self._printed(node) + log.read_bytes())
            return [self._done(leaf, problem, node) for leaf in leaves], []
        if not ready:
            return [self._leaf(leaf, node, f"the process that it would share {ended.ended}") for leaf in leaves], []
        left = [by_out[out] for out in ready["left"]]
        for leaf in left:
            leaf.weigh(ready["weights"])
        works = [self._done(leaf, errors.get(str(leaf.out)), node) for leaf in leaves if leaf not in left]
        if ready["reason"] or fork.server is None:
            reason = f"the process that it would share cannot be forked: {ready['reason']}"
            return works + [self._leaf(leaf, node, reason) for leaf in left], []
        if left:
            grown = _Node(fork.server, stage, node, log, ended.now, node.peak_with(ended.peak), len(left))
            with self._lock:
                self._nodes.append(grown)
            works += [work for group in parted_after(stage, left) for work in self._branch(group, grown)]
        return works, []

    def _printed(self, node: _Node) -> bytes:
        """Returns what a node and those above it have printed."""
        return b"".join(above.log.read_bytes() for above in node.line if above.log)

    def _forked(self, leaf: Leaf, node: _Node) -> Outcome:
        """Builds in a process forked from the node's, or alone if that process has ended."""
        start, child_events = time.monotonic(), ChildEvents(leaf.prepared.report)
        with leaf.log.open("ab+") as log:
            begin = log.tell()
            log.write(self._printed(node))
            log.flush()
            try:
                _, ended = self._follow([leaf], node, None, log, child_events.add)
            except ConnectionError:
                log.truncate(begin)
                return self._alone(leaf, "the process that it would share has ended")
            error = child_events.error_of(ended.ended or ProcessEnd(code=0), log, begin)
        if ended.timed_out:
            error = too_long(ended.ended, self._timeout)
        artifact = None if error else leaf.prepared.finished()
        return Outcome(artifact, error, node.peak_with(ended.peak), time.monotonic() - start)

    def _follow(
        self, leaves: Sequence[Leaf], node: _Node, stage: str | None, log: IO[bytes], on_event: OnEvent
    ) -> tuple[Fork, Ended]:
        """Forks a process from the node's, and follows it until it ends or waits to be forked.

        Args:
            leaves: the builds that the process works on.
            node: the node to fork.
            stage: the last stage that the process runs before it waits to be forked; None to build to the end.
            log: receives what the process prints.
            on_event: receives its events.

        Raises:
            StoppedError: all builds were stopped.
            OSError: the node's process has ended (as ConnectionError if it ended while the process ran).
        """
        request = {"jobs": [leaf.prepared.job() for leaf in leaves], "until": stage or "write"}
        with self._lock:
            if self._stopped:
                raise StoppedError
            fork = Fork(node.server, self._folder, request, log, waits=stage is not None)
            self._processes.add(fork)
        try:
            return fork, fork.follow(on_event, self._timeout)
        finally:
            for leaf in leaves:
                if fork.pid is not None:
                    remove_parts(leaf.out, fork.pid)
            with self._lock:
                self._processes.discard(fork)

    def _alone(self, leaf: Leaf, reason: str | None) -> Outcome:
        """Builds in a process that shares nothing.

        Args:
            leaf: the build.
            reason: why it shares nothing although it could, for its log; None if there was nothing to share.
        """
        alone = Alone(leaf.prepared)
        with self._lock:
            if self._stopped:
                raise StoppedError
            self._processes.add(alone)
        try:
            with leaf.log.open("ab+") as log:
                if reason:
                    log.write(f"built by itself: {reason}\n".encode())
                    log.flush()
                return alone.run(log, self._timeout)
        finally:
            with self._lock:
                self._processes.discard(alone)

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.kill()
            for node in self._nodes:
                node.server.close()


def _share(leaves: Sequence[Leaf]) -> bool:
    return len(leaves) > 1 and portable(leaves[0].options)


def _memory(leaf: Leaf, node: _Node | None) -> int:
    """Returns the private memory, in bytes, that a process below a node is expected to take."""
    return max(leaf.memory - (INHERITED if node and node.stage else 0), 1)


def _outcome(build: Callable[[], Outcome]) -> Outcome:
    """Runs a build and turns any exception into its outcome, so that a full disk or a bug fails one build only."""
    try:
        return build()
    except StoppedError:
        raise
    except TrtcrossError as error:
        return Outcome(None, error)
    except Exception as error:  # noqa: BLE001 - the other builds must go on
        problem = BuildFailedError(
            f"the build could not be run: {type(error).__name__}: {error}", remedy="see the message"
        )
        problem.__cause__ = error
        return Outcome(None, problem)
