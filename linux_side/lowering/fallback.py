"""Finds operators that TensorRT does not take, keeps them in PyTorch, and continues the build."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from linux_side import upstream
from linux_side.cache.notes import KeptOperator, Notes
from linux_side.fx.source_line import source_line
from linux_side.lowering.culprit import OperatorRefusedError, lowered_name
from toolchain.errors import BuildFailedError

MOST_REBUILDS = 8
MOST_TIMES = 3  # further attempts may take this many times as long as the build until the first failure
LEAST_SECONDS = 60.0  # further attempts may take at least this long
# If the builder refuses an operator because of its surroundings, operators whose inputs are alike up to this depth are
# refused too: they belong to further layers of the same kind.
_DEPTH = 4

Result = TypeVar("Result")


class AttemptFailedError(Exception):
    """An attempt to build found operators that TensorRT does not take."""

    def __init__(self, refusals: Sequence[OperatorRefusedError]) -> None:
        super().__init__("; ".join(refusal.reason for refusal in refusals))
        self.refusals = list(refusals)


class Fallback:
    """The operators of a lowered graph that stay in PyTorch because TensorRT does not take them.

    Args:
        gm: the lowered graph, which is partitioned again at each attempt.
        started: when the build began, by ``time.monotonic``.
        notes: the operators that an earlier build found; those of this build are added.
        warn: receives a sentence for each kind of operator.
        refuse: whether to refuse a model with such operators.

    Attributes:
        kept: the operators found so far.
    """

    def __init__(
        self,
        gm: torch.fx.GraphModule,
        *,
        started: float | None = None,
        notes: Notes | None = None,
        warn: Callable[[Iterable[str]], None] = lambda _: None,
        refuse: bool = False,
    ) -> None:
        self._nodes = {node.name: node for node in gm.graph.nodes if node.op == "call_function"}
        self._started = time.monotonic() if started is None else started
        self._notes, self._refuse = notes or Notes(), refuse
        self._warn = warn
        self.kept: list[KeptOperator] = []
        self._deadline: float | None = None

    def run(self, attempt: Callable[[], Result]) -> Result:
        """Repeats an attempt until TensorRT refuses no operator, and returns its result.

        Args:
            attempt: partitions the graph and builds the engines; raises AttemptFailedError if TensorRT refuses some.

        Raises:
            BuildFailedError: there were too many attempts, the time is over, or no operator may be refused.
        """
        self._keep(kept for kept in self._notes.read() if self._is_here(kept))
        for _ in range(MOST_REBUILDS + 1):
            try:
                return attempt()
            except AttemptFailedError as error:
                found = [kept for refusal in error.refusals for kept in self._found(refusal)]
                self._keep(found)
                if not found:
                    raise self._given_up(error, "the operator is not known") from error
                if time.monotonic() > self.deadline():
                    raise self._given_up(error, "there is no time for another attempt") from error
                last = error
        raise self._given_up(last, f"{MOST_REBUILDS} more attempts did not end it") from last

    def deadline(self) -> float:
        """Returns when attempts must end, by ``time.monotonic``. The first call, at the first failure, fixes it."""
        if self._deadline is None:
            now = time.monotonic()
            self._deadline = now + max(MOST_TIMES * (now - self._started), LEAST_SECONDS)
        return self._deadline

    @property
    def warnings(self) -> list[str]:
        """A sentence for each kind of operator that was kept, without the folders of the building machine."""
        named = [kept.model_copy(update={"line": Path(kept.line).name if kept.line else None}) for kept in self.kept]
        return texts(named)

    def _is_here(self, kept: KeptOperator) -> bool:
        node = self._nodes.get(kept.node)
        return node is not None and str(node.target) == kept.operator

    def _found(self, refusal: OperatorRefusedError) -> list[KeptOperator]:
        """Returns the operators that a refusal names, and those that would be refused in the same way."""
        names = {name for node in refusal.nodes if (name := lowered_name(node))}
        chosen = [self._nodes[name] for name in names if name in self._nodes]
        depth = 1 if refusal.by_itself else _DEPTH
        kinds = {_look(node, depth) for node in chosen}
        return [
            KeptOperator(node=node.name, operator=str(node.target), line=source_line(node), reason=refusal.reason)
            for node in self._nodes.values()
            if _look(node, depth) in kinds and upstream.why_in_torch(node) is None
        ]

    def _keep(self, found: Iterable[KeptOperator]) -> None:
        found = list(found)
        if not found:
            return
        self.kept += found
        self._notes.write(self.kept)
        if self._refuse:
            raise BuildFailedError(
                "; ".join(texts(found)),
                where="--require-full-coverage",
                remedy="rewrite it in the model, or build without --require-full-coverage",
            )
        for kept in found:
            upstream.keep_in_torch(self._nodes[kept.node], kept.reason)
        self._warn(texts(found))

    def _given_up(self, error: AttemptFailedError, why: str) -> BuildFailedError:
        tried = "; ".join(texts(self.kept)) or "nothing"
        return BuildFailedError(
            f"TensorRT does not take this model, and {why}. Already kept in PyTorch: {tried}",
            where=f"last: {error}",
            remedy="keep whole kinds of operators in PyTorch with --torch-executed-op, or rewrite them in the model",
        )


def texts(kept: Sequence[KeptOperator]) -> list[str]:
    """Returns a sentence for each kind of operator and reason."""
    groups: dict[tuple[str, str], list[KeptOperator]] = {}
    for item in kept:
        groups.setdefault((item.operator, item.reason), []).append(item)
    return [_text(operator, reason, group) for (operator, reason), group in groups.items()]


def _text(operator: str, reason: str, group: Sequence[KeptOperator]) -> str:
    lines = list(dict.fromkeys(item.line for item in group if item.line))
    places = ", ".join(lines[:3]) + (f" and {len(lines) - 3} more lines" if len(lines) > 3 else "")
    times = f" x{len(group)}" if len(group) > 1 else ""
    return f"{operator}{times} stays in PyTorch{f' ({places})' if places else ''}: {reason}"


def _look(node: torch.fx.Node, depth: int) -> str:
    """Describes a node's operator, sizes and dtype, and those of its inputs up to a depth.

    Nodes with the same description are refused alike.
    """
    value = node.meta.get("val")
    what = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else str(value)
    if node.op != "call_function" or not depth:
        return f"{'constant ' if node.op == 'get_attr' else ''}{what}"
    arguments = torch.fx.map_arg((node.args, node.kwargs), lambda source: _look(source, depth - 1))
    return f"{what} {node.target}{arguments}"
