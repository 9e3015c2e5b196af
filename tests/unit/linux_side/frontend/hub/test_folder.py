"""Broken model folders are refused, each for its own reason, before torch or transformers is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linux_side.frontend.hub.folder import open_folder, require_task_of_folder
from linux_side.frontend.hub.tasks import TASKS, task_of
from toolchain.errors import TrtcrossError, UntrustedError, UsageError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="artifacts are built on Linux")

INDEX = "model.safetensors.index.json"
TASK = "fill-mask"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder that is accepted."""
    path = tmp_path / "bert"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"]}))
    (path / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    return path


def configured(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, **changes}))

    return change


def without(*names: str, **texts: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        for name in names:
            (path / name).unlink()
        for name, text in texts.items():
            (path / name.replace("_dot_", ".")).write_text(text)

    return change


def sharded(*there: str, named: tuple[str, ...] = ("a.safetensors", "b.safetensors")) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        (path / "model.safetensors").unlink()
        (path / INDEX).write_text(json.dumps({"weight_map": {f"w{index}": name for index, name in enumerate(named)}}))
        for name in there:
            (path / name).write_bytes(b"\2\0\0\0\0\0\0\0{}")

    return change


def in_a_folder(path: Path) -> None:
    (path / "unet").mkdir()
    (path / "config.json").rename(path / "unet" / "config.json")


REFUSED: dict[str, tuple[Callable[[Path], None], str, type[TrtcrossError], str, str]] = {
    "code": (configured(auto_map={"AutoModel": "code.Net"}), TASK, UntrustedError, "auto_map", "factory of your own"),
    "code of a part": (configured(text_config={"auto_map": {}}), TASK, UntrustedError, "auto_map", "'bert'"),
    "no config": (without("config.json"), TASK, UsageError, "no config.json", "save_pretrained"),
    "a pipeline": (in_a_folder, TASK, UsageError, "no config.json", "give one of the folders in it: unet"),
    "an adapter": (
        without("config.json", adapter_config_dot_json="{}"),
        TASK,
        UsageError,
        "no config.json",
        "merge_and_unload",
    ),
    "not JSON": (without(config_dot_json="{"), TASK, UsageError, "not JSON", "again"),
    "a list": (without(config_dot_json="[]"), TASK, UsageError, "not a JSON object", "again"),
    "deep JSON": (without(config_dot_json="[" * 99999), TASK, UsageError, "not JSON", "again"),
    "no type": (without(config_dot_json="{}"), TASK, UsageError, "names no model_type", "a factory"),
    "a wrong task": (without(), "fill-masks", UsageError, "no task 'fill-masks'", "do you mean fill-mask?"),
    "an unknown task": (without(), "dancing", UsageError, "no task 'dancing'", ", ".join(TASKS)),
    "no weights": (without("model.safetensors"), TASK, UsageError, "no weights", "download the whole folder"),
    "a pickle": (
        without("model.safetensors", pytorch_model_dot_bin=""),
        TASK,
        UntrustedError,
        "a pickle runs code: pytorch_model.bin",
        "save_pretrained",
    ),
    "a missing part": (
        sharded("a.safetensors"),
        TASK,
        UsageError,
        "1 of the 2 parts of the weights are missing: b.safetensors",
        "again",
    ),
    "a part elsewhere": (
        sharded(named=("../a.safetensors",)),
        TASK,
        UsageError,
        "as files beside it",
        "save_pretrained",
    ),
    "a pickled part": (sharded("a.bin", named=("a.bin",)), TASK, UsageError, "as files beside it", "save_pretrained"),
    "a pointer": (
        without(model_dot_safetensors="version https://git-lfs.github.com/spec/v1\n"),
        TASK,
        UsageError,
        "Git LFS",
        "pull",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_each_broken_folder_is_an_error_of_its_own(case: str, folder: Path) -> None:
    change, task, kind, problem, remedy = REFUSED[case]
    change(folder)
    with pytest.raises(kind) as caught:
        open_folder(folder, task)
    assert type(caught.value) is kind and problem in caught.value.problem and remedy in str(caught.value.remedy)
    assert task != TASK or str(folder) in str(caught.value.where)


def test_without_a_task_the_likely_one_is_named(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        open_folder(folder, None)
    assert caught.value.remedy == "add --task fill-mask"
    names = {"GPT2LMHeadModel": "text-generation", "ViTForImageClassification": "image-classification", "X": ""}
    assert [task_of(name) for name in names] == ["text-generation", "image-classification", "feature-extraction"]


def test_only_the_files_that_were_checked_are_shown_to_transformers(folder: Path, tmp_path: Path) -> None:
    sharded("a.safetensors", "b.safetensors")(folder)
    for name in ("modeling_x.py", "pytorch_model.bin", "adapter_config.json", "c.safetensors"):
        (folder / name).write_text("")
    place = tmp_path / "place"
    place.mkdir()
    open_folder(folder, TASK).link_into(place)
    assert {path.name for path in place.iterdir()} == {"config.json", INDEX, "a.safetensors", "b.safetensors"}


def test_a_task_for_something_else_is_refused(folder: Path) -> None:
    require_task_of_folder(str(folder), TASK)
    require_task_of_folder("models:net", None)
    with pytest.raises(UsageError, match="'models:net' is none"):
        require_task_of_folder("models:net", TASK)


def test_nothing_heavy_is_imported_to_refuse_a_folder(folder: Path) -> None:
    configured(auto_map={})(folder)
    code = "import sys; from linux_side.driver.building import build\n"
    code += "try: build(sys.argv[1], 'out.pt2', task='fill-mask')\n"
    code += "except Exception as error: print(type(error).__name__, {'torch', 'transformers'} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "UntrustedError set()"
