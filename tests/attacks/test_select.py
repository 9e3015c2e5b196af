"""`select` in a folder of all attacks gives each a row, and still finds the one sound artifact."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.attacks import ATTACKS
from tests.unit.windows_side.preflight.test_selection import SM89, artifact, found, machine

__all__ = ["machine"]


@pytest.mark.usefixtures("machine")
def test_every_attack_is_a_row(tmp_path: Path) -> None:
    for name, attack in ATTACKS.items():
        attack.write(tmp_path / f"{name}.pt2")
    artifact(tmp_path / "good.pt2", mask=SM89)
    names = {path.name for path in tmp_path.iterdir() if path.suffix == ".pt2"}
    assert len(names) > 50
    rows = found(tmp_path)
    assert rows.keys() == names
    assert rows["good.pt2"]["outcome"] == "best"
    for name, row in rows.items():
        assert row["reasons"] or name == "good.pt2"
        assert "this should not have happened" not in str(row["reasons"]), row
