"""``module:factory`` and ``FILE.py:factory`` are found and called, without lasting changes to the process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolchain.errors import BuildFailedError, UsageError
from toolchain.factory import call_factory, is_factory, require_factory

MODULE = """
import sys
import helper_of_{name}
made = 1
def factory():
    import late_helper_of_{name}
    return 42
def broken():
    raise KeyError("x")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module in the current folder that no other test imports, and two modules that it imports."""
    name = f"made_for_{request.node.name}"
    (tmp_path / f"{name}.py").write_text(MODULE.format(name=name))
    (tmp_path / f"helper_of_{name}.py").write_text("")
    (tmp_path / f"late_helper_of_{name}.py").write_text("")
    monkeypatch.chdir(tmp_path)
    return name


def test_a_factory_of_the_current_folder_leaves_the_path_as_it_was(module: str) -> None:
    before = list(sys.path)
    assert call_factory(f"{module}:factory") == 42
    assert call_factory(f"{module}:factory") == 42
    assert sys.path == before


def test_one_that_fails_does_so_too(module: str) -> None:
    before = list(sys.path)
    with pytest.raises(BuildFailedError, match="the factory raised KeyError"):
        call_factory(f"{module}:broken")
    for name in (f"{module}:none", f"{module}:made", "no_such_module:factory", ":factory"):
        with pytest.raises(UsageError) as caught:
            call_factory(name, where="--original")
        assert caught.value.where == "--original"
    assert sys.path == before


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is not the current one; modules that a test imports from it are forgotten."""
    before = dict(sys.modules)
    yield tmp_path
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_path_finds_what_is_beside_the_file_in_any_folder(folder: Path) -> None:
    write(folder / "parts_beside.py", "SIZE = 7")
    write(folder / "my-model.py", "from parts_beside import SIZE\ndef factory():\n    return SIZE")
    before = list(sys.path)
    assert call_factory(f"{folder / 'my-model.py'}:factory") == 7
    assert call_factory(f"{folder / 'my-model.py'}:factory") == 7
    assert sys.path == before


def test_a_path_is_a_module_of_its_own_whatever_its_name(folder: Path) -> None:
    text = "import {0}, dataclasses\n@dataclasses.dataclass\nclass A:\n    a: int = 1\ndef factory():\n    return {0}"
    for name in ("toolchain", "select", "click"):
        path, module = write(folder / f"{name}.py", text.format(name)), sys.modules.get(name)
        assert call_factory(f"{path}:factory") is sys.modules[name]
        assert module is None or sys.modules[name] is module


FAILURES = {
    "no file": ("./modle.py:factory", UsageError, "there is no file modle.py", "do you mean model.py:factory?"),
    "no function": ("./model.py:factori", UsageError, "no 'factori' in ./model.py", "do you mean 'factory'?"),
    "other functions": ("./model.py:zzz", UsageError, "no 'zzz'", "its functions are: ended, factory, sized"),
    "arguments": ("./model.py:sized", UsageError, "the factory needs arguments: sized(size)", "without arguments"),
    "ended": ("./model.py:ended", BuildFailedError, "the factory ended the process: SystemExit(3)", "correct it"),
    "relative": ("./inner.py:factory", BuildFailedError, "no known parent package", "name it as a module"),
    "syntax": ("./syntax.py:factory", BuildFailedError, "raised SyntaxError", "correct it"),
    "missing inside": (
        "missing:f",
        BuildFailedError,
        "there is no module 'no_such_package'",
        "install no_such_package",
    ),
    "missing": ("no_such.module:f", UsageError, "there is no module 'no_such'", "./mymodels.py:resnet50"),
    "hidden": ("toolchain:factory", UsageError, "has that name already", "give the file: ./toolchain.py:factory"),
    "hidden inside": ("toolchain.models:f", UsageError, "has that name already", "./toolchain.py"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_each_failure_names_its_cause_its_place_and_a_remedy(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    write(folder / "model.py", "def factory(): ...\ndef sized(size): ...\ndef ended():\n    raise SystemExit(3)")
    write(folder / "inner.py", "from .model import factory")
    write(folder / "syntax.py", "def factory(:")
    write(folder / "missing.py", "import no_such_package.part")
    write(folder / "toolchain.py", "def factory(): ...")
    name, kind, problem, remedy = FAILURES[case]
    with pytest.raises(kind) as caught:
        call_factory(name)
    assert problem in caught.value.problem and remedy in str(caught.value.remedy)


@pytest.mark.parametrize("name", ["./modle.py:factory", "./model.py:factori", "no_such.module:f", "pack.no:f", "a-b:f"])
def test_a_typo_is_refused_alike_without_importing_anything(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    write(folder / "model.py", "def factory(): ...")
    write(folder / "pack" / "__init__.py", "")
    with pytest.raises(UsageError) as called:
        call_factory(name)
    before = set(sys.modules)
    with pytest.raises(UsageError) as looked_up:
        require_factory(name)
    assert str(looked_up.value) == str(called.value)
    assert set(sys.modules) == before


BOUND_SOMEHOW = {
    "plain": "def factory(): ...",
    "imported": "from other import thing as factory",
    "imported star": "from other import *",
    "assigned in a branch": "if True:\n    factory, other = print, 1",
    "made": "globals()['fac' + 'tory'] = print",
    "asked for": "def __getattr__(name): return print",
    "not Python": "def factory(:",
}


@pytest.mark.parametrize("case", BOUND_SOMEHOW)
def test_what_only_importing_can_tell_is_left_to_it(case: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    write(folder / "bound.py", BOUND_SOMEHOW[case])
    write(folder / "click.py", "def factory(): ...")  # a module that this process has imported from elsewhere
    require_factory("bound:factory")
    require_factory("./bound.py:factory")
    require_factory("click:factory")
    require_factory("os.path:join")


def test_the_line_of_the_users_own_code_is_named(folder: Path) -> None:
    path = write(folder / "raises.py", "import json\n\ndef factory():\n    return json.loads('{')")
    with pytest.raises(BuildFailedError, match="the factory raised JSONDecodeError") as caught:
        call_factory(f"{path}:factory")
    assert str(caught.value.where).endswith(f"{path}:4")


def test_a_file_that_hides_an_installed_module_is_named(folder: Path) -> None:
    write(folder / "hypothesis.py", "")
    path = write(folder / "uses.py", "from hypothesis import given")
    hypothesis = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "hypothesis"}
    try:
        with pytest.raises(BuildFailedError, match=r"hypothesis\.py in .* hides what is installed") as caught:
            call_factory(f"{path}:factory")
    finally:
        sys.modules.pop("hypothesis", None)
        sys.modules.update(hypothesis)
    assert caught.value.remedy == "rename hypothesis.py"


def test_a_file_does_not_hide_pythons_own_modules(folder: Path) -> None:
    write(folder / "colorsys.py", "raise ImportError('it was imported')")
    path = write(folder / "own.py", "import colorsys\ndef factory():\n    return colorsys.__file__")
    sys.modules.pop("colorsys", None)
    assert not call_factory(f"{path}:factory").startswith(str(folder))


def test_names_of_factories_and_of_files_are_distinguished(tmp_path: Path) -> None:
    assert all(map(is_factory, ("models:resnet", "a.b:c", "./a.py:f", "/x/y z.py:f", "C:\\models\\a.py:f")))
    assert not any(map(is_factory, ("model.pt2", ":f", "models:", "C:\\models\\a.pt2", "models:a.b")))
    if sys.platform != "win32":  # which has no such name
        write(tmp_path / "a:b", "")
        assert not is_factory(str(tmp_path / "a:b"))
