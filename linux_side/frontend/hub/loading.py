"""Loads a folder's model for a task with transformers, without network, code of the folder, or pickles."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from linux_side.frontend.hub.examples import Tensors, example_inputs
from linux_side.frontend.hub.folder import ModelFolder
from linux_side.frontend.hub.tasks import auto_classes, task_of
from toolchain.errors import BuildFailedError, MissingComponentError, UsageError
from toolchain.text import first_line

_NAMED = 3


def load_model(folder: ModelFolder, task: str) -> tuple[torch.nn.Module, Tensors]:
    """Loads the model of a folder.

    Returns:
        The model in fp32 and in eval mode, and the arguments of one call by name.

    Raises:
        UsageError: transformers does not know the model or has no such task for it, or the folder lacks weights for it.
        BuildFailedError: transformers could not load the model.
        MissingComponentError: transformers is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="trtcross-") as place:
        folder.link_into(Path(place))
        model = _load(folder, Path(place), task)
    return model, example_inputs(model, folder.image_size)


def _load(folder: ModelFolder, place: Path, task: str) -> Any:
    transformers = _transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise UsageError(
            f"transformers {transformers.__version__} does not know this model: {first_line(error)}",
            where=str(folder.path),
            remedy="install a transformers that has it, or load the model in a factory: ./file.py:factory",
        ) from error
    config._attn_implementation = None  # the file could request another one, such as a kernel from a hub
    config.use_cache = False  # the artifact computes one call, which returns no cache
    model, info = _from_pretrained(transformers, folder, place, config, task)
    missing = sorted(info["missing_keys"])
    if missing and all(name.split(".")[0] == "pooler" for name in missing):
        model, info = _from_pretrained(transformers, folder, place, config, task, add_pooling_layer=False)
        missing = sorted(info["missing_keys"])
    _require_weights(folder, [*missing, *(str(item[0]) for item in info["mismatched_keys"])])
    return model.eval()


def _transformers() -> Any:
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported
    try:
        import transformers
    except ImportError as error:
        raise MissingComponentError(
            f"a model folder needs transformers: {first_line(error)}",
            where="--task",
            remedy="pip install 'transformers>=5,<6'",
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _from_pretrained(transformers: Any, folder: ModelFolder, place: Path, config: Any, task: str, **more: Any) -> Any:
    found = [getattr(transformers, name) for name in auto_classes(task)]
    auto = next((item for item in found if type(config) in item._model_mapping), None)
    if auto is None:
        architectures = getattr(config, "architectures", None) or [""]
        raise UsageError(
            f"transformers has no model of type {config.model_type!r} for the task {task}",
            where="--task",
            remedy=f"the folder's model is {architectures[0] or 'of no named class'}: try --task "
            f"{task_of(architectures[0])}",
        )
    try:
        return auto.from_pretrained(
            place,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **more,
        )
    except Exception as error:
        raise BuildFailedError(
            f"transformers could not load the model: {type(error).__name__}: {first_line(error)}",
            where=str(folder.path),
            remedy="-v shows the whole report; make from_pretrained work by itself first",
        ) from error


def _require_weights(folder: ModelFolder, missing: Sequence[str]) -> None:
    """Refuses a model with missing weights, which transformers would only warn about and fill with random numbers."""
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        saved = (folder.config.get("architectures") or ["unknown"])[0]
        raise UsageError(
            f"the folder has no weights for {', '.join(missing[:_NAMED])}{more}: they would be random",
            where=str(folder.path),
            remedy=f"it was saved as {saved}: use --task {task_of(saved)}, or train the part first",
        )
