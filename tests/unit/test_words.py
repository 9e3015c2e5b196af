"""The repository uses plain words, which are shorter and which readers who learn English know."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.conftest import ROOT

# Patterns of words that are no longer used, and what to write instead.
REPLACED = {
    r"shall": "must, will, or the present tense",
    r"(hold|holds|held) (it |them )?against": "compare",
    r"mend(s|ed|ing)?": "fix",
    r"(say|says|said|told) (it |this )?in another way": "rewrite, or: differently",
    r"in another way than": "other than",
    r"(was|were|is|are) seen to": "the observation itself, with where it was made",
    r"lies": "is",
    r"wants": "needs",
    r"makes NaN": "returns NaN",
    r"the dead": "a killed process",
    r"(speaks?|spoken) of": "names, or: is about",
    r"(is |are |was |were )?told of": "reports, or: gets",
    r"hears? of": "gets, or: finds",
    r"let(s|ting)? go of": "release",
    r"in silence|without a word": "silently",
    r"(tells?|telling|told) (\w+ ){0,3}apart": "distinguish",
    r"(goes|go|took|takes) the (long|shortest) way": "how the call is made",
    r"thought to": "expected to, estimated to",
    r"such a one": "the thing itself",
    r"as the case may be": "each error with its condition",
    r"on its way to the artifact": "temporary",
}
# Files that are not checked: the changelog, licences, and files that never change or are not written by hand.
LEFT = re.compile(
    r"LICENSE|CHANGELOG\.md|tests/fuzz/corpus/|schema/|schema1/|toolchain/manifest/models\.py|wheels\.lock"
)
# Places where a word of the list is right.
MEANT = {
    ("docs/trust/attacks.md", "lies"),  # a size that is not true
    ("tests/unit/test_words.py", None),
}


def _texts() -> dict[str, str]:
    if not shutil.which("git"):
        pytest.skip("git is not here")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout")
    texts = {}
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".sh", ".yml", ".toml", ".html", ".ps1"}
            and path.is_file()
            and not LEFT.search(name)
        ):
            texts[name] = path.read_text(encoding="utf-8")
    return texts


def test_the_house_writes_plain_words() -> None:
    words = re.compile("|".join(f"(?:{pattern})" for pattern in REPLACED), re.I)
    words = re.compile(rf"(?<![\w`])(?:{words.pattern})(?![\w`]| = )", re.I)
    found = []
    for name, text in _texts().items():
        for match in words.finditer(text):
            word = match.group().lower()
            if (name, word) in MEANT or (name, None) in MEANT:
                continue
            better = next(better for pattern, better in REPLACED.items() if re.fullmatch(pattern, word))
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{name}:{line}: {match.group()!r}: write {better}")
    assert not found, "\n".join(found)
