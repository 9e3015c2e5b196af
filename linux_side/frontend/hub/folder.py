"""Checks the configuration and the weights of a Hugging Face model folder, before torch or transformers is imported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linux_side.frontend.hub.tasks import auto_classes, task_of
from toolchain.errors import UntrustedError, UsageError

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_NAMED = 3
_LFS = b"version https://git-lfs"


@dataclass(frozen=True)
class ModelFolder:
    """The files of a folder that transformers may read.

    Attributes:
        path: the folder.
        config: its configuration.
        files: the configuration, the weights, and the index of weights in parts.
        image_size: the size that the folder's preprocessor gives images; None if it has none.
    """

    path: Path
    config: dict[str, Any]
    files: list[Path]
    image_size: Any = None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.absolute().name

    def link_into(self, place: Path) -> None:
        """Links these files into another folder, so that transformers finds no code, pickle or adapter there."""
        for file in self.files:
            (place / file.name).symlink_to(file.absolute())


def open_folder(path: Path, task: str | None) -> ModelFolder:
    """Checks a folder without running anything in it.

    Args:
        path: the folder.
        task: the requested task.

    Raises:
        UsageError: the task is missing or unknown, or the configuration or a part of the weights is missing.
        UntrustedError: the configuration names code of its own, or the weights are pickled.
    """
    config = _config(path)
    if task is None:
        raise UsageError(
            "a model folder needs a task, which determines what the model computes",
            where=str(path),
            remedy=f"add --task {_likely_task(config)}",
        )
    auto_classes(task)
    _refuse_code(config, path)
    return ModelFolder(path, config, [path / _CONFIG, *_weights(path)], _image_size(path))


def require_task_of_folder(model: str, task: str | None) -> None:
    """Refuses a task for a model that is not a folder.

    Raises:
        UsageError: a task is given, and the model is not a folder.
    """
    if task is not None and not Path(model).is_dir():
        raise UsageError(
            f"a task is for a model folder, and {model!r} is none",
            where="--task",
            remedy="leave --task out, or give a folder that model.save_pretrained wrote",
        )


def _config(path: Path) -> dict[str, Any]:
    file = path / _CONFIG
    if not file.is_file():
        raise _no_config(path)
    config = _read_json(file)
    if not isinstance(config.get("model_type"), str):
        raise UsageError(
            "the configuration names no model_type, so it is not one of transformers",
            where=str(file),
            remedy="give a folder that model.save_pretrained wrote; other models need a factory: ./file.py:factory",
        )
    return config


def _no_config(path: Path) -> UsageError:
    remedy = "give a folder that model.save_pretrained wrote, or a .pt2 file, module:factory or ./file.py:factory"
    if (path / "adapter_config.json").is_file():
        remedy = "it holds an adapter alone: merge it first, model.merge_and_unload().save_pretrained(folder)"
    elif parts := sorted(file.parent.name for file in path.glob(f"*/{_CONFIG}")):
        remedy = f"give one of the folders in it: {', '.join(parts[:_NAMED])}"
    return UsageError(
        f"the folder has no {_CONFIG}, so it is not a model of transformers", where=str(path), remedy=remedy
    )


def _likely_task(config: dict[str, Any]) -> str:
    architectures = config.get("architectures")
    return task_of(str(architectures[0]) if isinstance(architectures, list) and architectures else "")


def _refuse_code(config: dict[str, Any], path: Path) -> None:
    if any("auto_map" in part for part in _parts(config)):
        raise UntrustedError(
            "the configuration has an auto_map: the model is code in or behind this folder, which is never run",
            where=str(path / _CONFIG),
            remedy=f"if transformers itself has {config['model_type']!r}, remove auto_map from a copy; otherwise load "
            "the model in a factory of your own: ./file.py:factory",
        )


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Yields a configuration and every configuration nested in it."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def _weights(path: Path) -> list[Path]:
    if (path / _WEIGHTS).is_file():
        files = [path / _WEIGHTS]
    elif (path / _INDEX).is_file():
        files = [*_indexed(path), path / _INDEX]
    else:
        raise _no_weights(path)
    for file in files:
        _refuse_pointer(file)
    return files


def _indexed(path: Path) -> list[Path]:
    index = path / _INDEX
    names = _read_json(index).get("weight_map")
    parts = sorted({str(name) for name in names.values()}) if isinstance(names, dict) else []
    if not parts or not all(name.endswith(".safetensors") and Path(name).name == name for name in parts):
        raise UsageError(
            "the index does not name the parts of the weights, as files beside it",
            where=str(index),
            remedy="save the model again with save_pretrained",
        )
    missing = [name for name in parts if not (path / name).is_file()]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise UsageError(
            f"{len(missing)} of the {len(parts)} parts of the weights are missing: {', '.join(missing[:_NAMED])}{more}",
            where=str(index),
            remedy="copy or download the folder again, every part of it",
        )
    return [path / name for name in parts]


def _no_weights(path: Path) -> UntrustedError | UsageError:
    pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
    if pickles:
        return UntrustedError(
            f"the weights are pickled, and a pickle runs code: {', '.join(pickles[:_NAMED])}",
            where=str(path),
            remedy="if you trust them, load them once with transformers and save_pretrained(folder), which writes "
            "safetensors",
        )
    return UsageError(
        f"the folder has no weights: neither {_WEIGHTS} nor {_INDEX}",
        where=str(path),
        remedy="download the whole folder, or save the model with save_pretrained",
    )


def _refuse_pointer(file: Path) -> None:
    with file.open("rb") as opened:
        if opened.read(len(_LFS)) == _LFS:
            raise UsageError(
                "this file is a pointer of Git LFS: the weights themselves were not fetched",
                where=str(file),
                remedy="run `git lfs pull` in the folder",
            )


def _image_size(path: Path) -> Any:
    file = path / "preprocessor_config.json"
    document = _read_json(file) if file.is_file() else {}
    return document.get("crop_size") if document.get("do_center_crop") else document.get("size")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"this is not JSON that can be read: {error}", where=str(file), remedy="copy or download the folder again"
        ) from error
    if not isinstance(document, dict):
        raise UsageError("this is not a JSON object", where=str(file), remedy="copy or download the folder again")
    return document
