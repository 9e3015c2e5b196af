"""Fuzzes every target in turn: ``python -m tests.fuzz.run --seconds 20``.

Findings are written to the folder that ``--findings`` names, and the new corpus to the one that ``--corpus`` names.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.targets import TARGETS

KEPT = Path(__file__).parent / "corpus"
ROOT = Path(__file__).parent.parent.parent
# The limits of an input's seconds and of the process's memory.
SECONDS_EACH, MEGABYTES, LONGEST = 5, 1024, 65536
_DONE = re.compile(r"Done (\d+)")
_STATUS = re.compile(r"^#(\d+)\s.*\bcov: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """The result of fuzzing one target.

    Attributes:
        finding: the end of the fuzzer's report if an input broke the target.
    """

    target: str
    executions: int
    coverage: int
    finding: str | None

    def __str__(self) -> str:
        end = f"FOUND SOMETHING\n{self.finding}" if self.finding else "nothing found"
        return f"{self.target}: {self.executions} executions, coverage {self.coverage}: {end}"


def fuzz(target: str, seconds: int, corpus: Path, findings: Path) -> Outcome:
    """Fuzzes one target in a process of its own."""
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", f"-timeout={SECONDS_EACH}", f"-rss_limit_mb={MEGABYTES}"]
    options = [*limits, f"-max_len={LONGEST}", f"-artifact_prefix={findings}/{target}-", "-close_fd_mask=1"]
    command = [sys.executable, "-m", "tests.fuzz.fuzz_one", target, *options, str(corpus), str(KEPT / target)]
    # A process's peak memory starts with that of the process that forked it, so a small shell is run between.
    command = ["sh", "-c", '"$@"; exit $?', "sh", *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    counts = _STATUS.findall(done.stderr)
    executions = _DONE.search(done.stderr)
    return Outcome(
        target,
        int(executions[1]) if executions else max((int(count) for count, _ in counts), default=0),
        max((int(coverage) for _, coverage in counts), default=0),
        done.stderr[-3000:] if done.returncode else None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="for all targets together")
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one (repeatable)")
    parser.add_argument("--corpus", type=Path, help="where new inputs go; a temporary folder unless given")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    options = parser.parse_args()
    targets = options.target or list(TARGETS)
    found = False
    with tempfile.TemporaryDirectory() as scratch:
        for target in targets:
            corpus = (options.corpus or Path(scratch)) / target
            outcome = fuzz(target, options.seconds // len(targets), corpus, options.findings.resolve())
            print(outcome, flush=True)
            found |= outcome.finding is not None
    sys.exit(found)


if __name__ == "__main__":
    main()
