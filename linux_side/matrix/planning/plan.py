"""Plans which cells are built and verified and where, and gives the reasons for the others. Builds nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from linux_side.cache.store import BuildCache
from linux_side.matrix.planning.cached import in_cache
from linux_side.matrix.planning.hosts import HERE, Host, listed_hosts
from linux_side.matrix.planning.memory import Memory
from linux_side.matrix.planning.placement import build_blocker, spec_blocker, verify_blocker
from linux_side.matrix.records import RunFolder
from linux_side.matrix.spec.cells import Cell, cells_of
from linux_side.matrix.spec.selectors import select
from linux_side.matrix.spec.spec import Spec
from toolchain.checker.structure import LEVELS


class Action(str, Enum):
    """The action that a plan takes on a cell."""

    BUILD = "build"
    FINISHED = "finished"
    ELSEWHERE = "elsewhere"
    IMPOSSIBLE = "impossible"
    EXCLUDED = "excluded"


@dataclass(frozen=True)
class PlannedVerification:
    """A level that a machine other than the builder verifies."""

    level: str
    host: Host


@dataclass(frozen=True)
class Planned:
    """A cell and its action.

    Attributes:
        cell: the cell.
        action: what happens to the cell.
        reason: why it is not built here; None if it is.
        host: the machine that builds it.
        memory: bytes that the build is expected to take.
        memory_from: a phrase for the source of that number.
        cached: whether the build cache is known to have the artifact.
        level: the level that the builder verifies it to.
        elsewhere: the level that is left for another machine.
        unverified: why no machine verifies it to the level in the spec; None if one does.
    """

    cell: Cell
    action: Action
    reason: str | None = None
    host: Host | None = None
    memory: int = 0
    memory_from: str = ""
    cached: bool = False
    level: str = "structure"
    elsewhere: PlannedVerification | None = None
    unverified: str | None = None

    def to_json(self) -> dict[str, Any]:
        cell = self.cell
        return {
            "id": cell.id,
            "action": self.action.value,
            "reason": self.reason,
            "model": cell.name,
            "precision": cell.precision,
            "platform": cell.target.platform.value,
            "backend": cell.target.backend.value,
            "version": cell.target.version,
            "gpus": cell.target.gpus,
            "host": self.host.name if self.host else None,
            "memory": self.memory or None,
            "memory_from": self.memory_from or None,
            "cached": self.cached,
            "level": self.level,
            "unverified": self.unverified,
        }


@dataclass(frozen=True)
class Plan:
    """The plan.

    Attributes:
        cells: every selected cell, in the order of the spec.
    """

    cells: tuple[Planned, ...]

    def of(self, *actions: Action) -> list[Planned]:
        """Returns the cells with one of these actions."""
        return [item for item in self.cells if item.action in actions]

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as JSON, in which ``include`` and ``verify`` fit a workflow's matrix (``fromJSON``)."""
        counts = {action.value: len(self.of(action)) for action in Action}
        builds = self.of(Action.BUILD, Action.FINISHED, Action.ELSEWHERE)
        return {
            "include": [_include(item) for item in builds],
            "verify": [_verify(item, item.elsewhere) for item in builds if item.elsewhere],
            "cells": [item.to_json() for item in self.cells],
            "counts": counts,
        }


def make_plan(
    spec: Spec,
    hosts: Sequence[Host],
    folder: RunFolder,
    memory: Memory,
    *,
    only: Iterable[str] = (),
    skip: Iterable[str] = (),
    again: bool = False,
    base: Path = Path(),
) -> Plan:
    """Plans the selected cells.

    Args:
        spec: the spec.
        hosts: the machines that this run can use: this machine, or the nodes of a cluster.
        folder: the run folder.
        memory: the known memory figures.
        only: selectors of cells; empty for all.
        skip: selectors of cells to leave out.
        again: whether to build finished cells again.
        base: the folder in which modules and ``.pt2`` files are looked up.

    Raises:
        UsageError: no cell is selected, or the spec contradicts itself.
    """
    cells, cache = cells_of(spec, base), BuildCache()
    chosen = set(select([cell.id for cell in cells], only, skip))
    others = listed_hosts(spec.machines)
    return Plan(
        tuple(_planned(cell, hosts, others, folder, memory, cache, again) for cell in cells if cell.id in chosen)
    )


def _planned(
    cell: Cell,
    hosts: Sequence[Host],
    others: Sequence[Host],
    folder: RunFolder,
    memory: Memory,
    cache: BuildCache,
    again: bool,
) -> Planned:
    if cell.excluded is not None:
        return Planned(cell, Action.EXCLUDED, cell.excluded)
    needed, source = memory.estimate(cell)
    builders = [*hosts, *(host for host in others if host.backends)]
    refusals = {host.name: build_blocker(cell, host, needed) for host in builders}
    never = spec_blocker(cell)
    builder = next((host for host in builders if refusals[host.name] is None), None)
    if never or builder is None:
        return Planned(cell, Action.IMPOSSIBLE, never or _joined(refusals), memory=needed, memory_from=source)
    level = _highest(cell, builder)
    elsewhere, unverified = None, None
    if level != cell.level:
        verifier = next((host for host in others if verify_blocker(cell, cell.level, host) is None), None)
        elsewhere = PlannedVerification(cell.level, verifier) if verifier else None
        unverified = None if verifier else f"no machine verifies {cell.level}: {_why_unverified(cell, builder, others)}"
    if builder in others:
        action, reason = (
            Action.ELSEWHERE,
            f"built on {builder.name}; " + _joined({h.name: refusals[h.name] for h in hosts}),
        )
    elif not again and folder.finished(cell, level):
        action, reason = Action.FINISHED, "done already"
    else:
        action, reason = Action.BUILD, None
    cached = action is Action.BUILD and in_cache(cell, folder.record(cell.id), cache)
    return Planned(cell, action, reason, builder, needed, source, cached, level, elsewhere, unverified)


def _highest(cell: Cell, host: Host) -> str:
    """Returns the last level, up to the requested one, that a machine can verify."""
    wanted = LEVELS[: LEVELS.index(cell.level) + 1]
    return next(level for level in reversed(wanted) if verify_blocker(cell, level, host) is None)


def _why_unverified(cell: Cell, builder: Host, others: Sequence[Host]) -> str:
    return _joined({host.name: verify_blocker(cell, cell.level, host) for host in (builder, *others)})


def _joined(refusals: dict[str, str | None]) -> str:
    reasons = {name: reason for name, reason in refusals.items() if reason}
    if len(set(reasons.values())) == 1:
        return next(iter(reasons.values()))
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())


def _include(item: Planned) -> dict[str, Any]:
    """Returns one job of a workflow's matrix; it is flat for expressions such as `matrix.id`."""
    cell, host = item.cell, item.host
    return {
        "id": cell.id,
        "model": cell.name,
        "precision": cell.precision,
        "platform": cell.target.platform.value,
        "backend": cell.target.backend.value,
        "version": cell.target.version or "",
        "gpus": ",".join(cell.target.gpus),
        "level": item.level,
        "host": host.name if host else HERE,
        "runs_on": list(host.runs_on) if host else [],
    }


def _verify(item: Planned, verification: PlannedVerification) -> dict[str, Any]:
    return {
        "id": item.cell.id,
        "platform": item.cell.target.platform.value,
        "level": verification.level,
        "host": verification.host.name,
        "runs_on": list(verification.host.runs_on),
    }
