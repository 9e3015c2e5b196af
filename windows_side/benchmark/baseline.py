"""Compares a benchmark with an earlier one, which was written to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from toolchain.errors import UsageError, WrongNumbersError


class _Machine(BaseModel):
    model_config = ConfigDict(extra="ignore")
    gpu: str


class _Latency(BaseModel):
    model_config = ConfigDict(extra="ignore")
    median: float


class Baseline(BaseModel):
    """The members of a document of ``trtcross bench --json`` that a comparison needs."""

    model_config = ConfigDict(extra="ignore")
    machine: _Machine
    latency: _Latency
    cuda_graphs: bool


def read_baseline(path: Path) -> Baseline:
    """Reads the document that an earlier ``bench --json`` printed.

    Raises:
        UsageError: the file cannot be read, or is not such a document.
    """
    try:
        return Baseline.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(
            f"the baseline cannot be read: {error}",
            where=str(path),
            remedy="write one with `trtcross bench ARTIFACT --json > FILE`",
        ) from error


def compare(document: dict[str, Any], baseline: Baseline, *, fail_over: float | None, where: str) -> float:
    """Returns the change of the median latency in percent; a positive number means slower.

    Args:
        document: the document of this run.
        fail_over: the largest slow-down allowed, in percent.
        where: the baseline's path, for errors.

    Raises:
        UsageError: the baseline was measured on a different GPU or in a different mode.
        WrongNumbersError: this run is slower than allowed.
    """
    for what, here, there in (
        ("GPU", document["machine"]["gpu"], baseline.machine.gpu),
        ("setting of --cuda-graphs", document["cuda_graphs"], baseline.cuda_graphs),
    ):
        if here != there:
            raise UsageError(
                f"the baseline has another {what}: {there}, here {here}",
                where=where,
                remedy="compare with a baseline of the same kind",
            )
    change = (document["latency"]["median"] / baseline.latency.median - 1) * 100
    if fail_over is not None and change > fail_over:
        raise WrongNumbersError(
            f"it is {change:.1f}% slower than the baseline ({document['latency']['median']:.4f} ms instead of "
            f"{baseline.latency.median:.4f} ms), and {fail_over:g}% are allowed",
            where=where,
            remedy="measure again on a quiet machine; if it stays, look at what changed since the baseline",
        )
    return float(change)
