"""``trtcross select``: the best artifact for this machine, and why each of the others is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from toolchain.cli.fields import field_options
from toolchain.cli.output import Output, verb
from toolchain.errors import IncompatibleError
from toolchain.host.requirements import State
from toolchain.progress import working
from toolchain.text import printable
from windows_side.options import RunOptions
from windows_side.preflight.selection import CRITERIA, Candidate, Refused, Selection, reasons
from windows_side.preflight.selection import select as select_artifact

_OUTCOMES = {State.MET: "fits", State.UNKNOWN: "unknown", State.NOT_MET: "does not fit"}


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--model", help="Choose among the artifacts of this model alone.")
@click.option("--allow-unlisted-gpu", is_flag=True, help="Also take one that does not list this GPU.")
@field_options(RunOptions, "runtime")
@verb
def select(output: Output, directory: Path, model: str | None, allow_unlisted_gpu: bool, runtime: str) -> None:
    """Choose the best artifact in DIRECTORY for this machine, and say why not the others (-q: its path alone)."""
    with working(f"reading the artifacts in {directory}"):
        selection = select_artifact(directory, model=model, allow_unlisted_gpu=allow_unlisted_gpu, runtime=runtime)
    best = selection.best
    output.put(
        directory=str(directory),
        best=str(best.path) if best else None,
        criteria=[criterion.name for criterion in CRITERIA],
        artifacts=[_candidate(candidate, best) for candidate in selection.candidates]
        + [_refused(refused) for refused in selection.refused],
    )
    if best is None:
        _say_others(output, selection)
        raise _none_fits(selection, directory)
    if output.verbosity < 0:
        output.say(str(best.path), level=-1)
    output.say(f"best: {_line(best.path)}")
    _say_others(output, selection)


def _say_others(output: Output, selection: Selection) -> None:
    losers = [candidate for candidate in selection.candidates if candidate != selection.best]
    others = {candidate: reasons(candidate, selection.best) for candidate in losers}
    common = [reason for reason in next(iter(others.values()), []) if all(reason in own for own in others.values())]
    for reason in common if len(others) > 1 else []:
        output.say(
            _line(f"  all {len(others)} others: {reason}" if selection.best else f"  all {len(others)}: {reason}")
        )
    for candidate, own in others.items():
        for reason in own:
            if len(others) == 1 or reason not in common:
                output.say(_line(f"  {candidate.path.name}: {reason}"))
    for refused in selection.refused:
        output.say(_line(f"  {refused.path.name}: refused: {refused.error.problem}"))
    models = sorted({candidate.model for candidate in selection.candidates})
    if len(models) > 1:
        output.say(_line(f"note: {len(models)} models are here; --model chooses among one's: {', '.join(models)}"))


def _line(text: object) -> str:
    """Returns text that may come from a file as one printable line."""
    return printable(str(text)).replace("\n", "\\n")


def _candidate(candidate: Candidate, best: Candidate | None) -> dict[str, Any]:
    return {
        "artifact": str(candidate.path),
        "outcome": "best" if candidate is best else _OUTCOMES[candidate.fit],
        "model": candidate.model,
        "runtime": candidate.runtime.value,
        "reasons": reasons(candidate, best),
        "criteria": {criterion.name: criterion.words(candidate) for criterion in CRITERIA},
        "requirements": [item.to_json() for item in candidate.requirements],
    }


def _refused(refused: Refused) -> dict[str, Any]:
    return {
        "artifact": str(refused.path),
        "outcome": "refused",
        "reasons": [refused.error.problem],
        "error": refused.error.to_json(),
    }


def _none_fits(selection: Selection, directory: Path) -> IncompatibleError:
    if not selection.candidates:
        remedy = "put artifacts there, or fix those that were refused" if selection.refused else "put artifacts there"
        return IncompatibleError("there is no artifact to choose from", where=str(directory), remedy=remedy)
    nearest = selection.candidates[0]
    return IncompatibleError(
        f"none of the {len(selection.candidates)} artifacts is known to run on this machine",
        where=str(directory),
        remedy=f"the nearest is {_line(nearest.path.name)}: `trtcross check` says what to do",
    )
