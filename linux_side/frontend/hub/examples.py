"""Makes example inputs for a model of transformers from its configuration: batch size 1, the same values each time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from linux_side.options import DynamicDimension
from toolchain.errors import UsageError

# docs/build/models.md documents these sizes.
TOKENS = 128
DECODER_TOKENS = 16
IMAGE = 224
SAMPLES = 16000
FRAMES = 16

Tensors = dict[str, torch.Tensor]


def example_inputs(model: Any, image_size: Any = None) -> Tensors:
    """Returns the arguments of one call of a model, by name.

    Args:
        model: the model.
        image_size: the size that the folder's preprocessor gives images. The configuration's own size takes precedence.

    Raises:
        UsageError: no example is known for an input of the model.
    """
    config, takes = model.config, inspect.signature(model.forward).parameters
    generator = torch.Generator().manual_seed(0)
    makers: dict[str, Callable[[], Tensors]] = {
        "input_ids": lambda: _text(config.get_text_config(), takes, generator),
        "pixel_values": lambda: {"pixel_values": _pixels(config, image_size, takes, generator)},
        "pixel_values_videos": lambda: {"pixel_values_videos": _pixels(config, image_size, takes, generator)},
        "input_values": lambda: {"input_values": _audio(config, generator)},
        "input_features": lambda: {"input_features": _features(config, generator)},
    }
    names = [model.main_input_name]
    if _has(config, "text_config") and _has(config, "vision_config"):
        names = ["input_ids", "pixel_values"]
    found: Tensors = {}
    for name in names:
        if name not in makers or name not in takes:
            raise UsageError(
                f"no example is known for {name!r}, an input of {type(model).__name__}",
                where="--task",
                remedy="load the model in a factory of your own, which gives an example: ./file.py:factory",
            )
        found |= makers[name]()
    if config.is_encoder_decoder and "decoder_input_ids" in takes:
        found["decoder_input_ids"] = _decoder(config.get_text_config(decoder=True), generator)
    return found


def within(inputs: Tensors, dynamic: Sequence[DynamicDimension]) -> Tensors:
    """Returns the example with sizes inside these ranges: cropped or repeated where its own are outside."""
    fitted = dict(inputs)
    for item in dynamic:
        tensor = fitted.get(item.input)
        if tensor is not None and item.dim < tensor.dim():
            old = tensor.shape[item.dim]
            size = min(max(old, item.lowest), item.highest)
            fitted[item.input] = tensor.index_select(item.dim, torch.arange(size) % old)
    return fitted


def _has(config: Any, name: str) -> bool:
    return getattr(config, name, None) is not None


def _number(config: Any, name: str, default: int) -> int:
    value = getattr(config, name, None)
    return value if isinstance(value, int) and value > 0 else default


def _text(config: Any, takes: Any, generator: torch.Generator) -> Tensors:
    """Returns the inputs of one sentence, whose last quarter is padding if the model takes an attention mask."""
    length = min(TOKENS, _number(config, "max_position_embeddings", TOKENS))
    ids, words = _tokens(config, length, generator), length - length // 4
    if end := _specials(config, "eos_token_id"):
        ids[:, words - 1] = end[0]
    found = {"input_ids": ids}
    if "attention_mask" in takes:
        found["attention_mask"] = torch.ones_like(ids)
        found["attention_mask"][:, words:] = 0
        ids[:, words:] = (_specials(config, "pad_token_id") or [0])[0]
    if "token_type_ids" in takes and _number(config, "type_vocab_size", 0) > 1:
        found["token_type_ids"] = torch.zeros_like(ids)
        found["token_type_ids"][:, words // 2 : words] = 1
    return found


def _tokens(config: Any, length: int, generator: torch.Generator) -> torch.Tensor:
    """Returns random tokens without special ones: models search for the end token, or derive positions from padding."""
    special = {token for name in ("pad", "bos", "eos") for token in _specials(config, f"{name}_token_id")}
    words = [token for token in range(_number(config, "vocab_size", 2)) if token not in special] or [0]
    return torch.tensor(words)[torch.randint(len(words), (1, length), generator=generator)]


def _specials(config: Any, name: str) -> list[int]:
    """Returns the numbers of a special token that are in the vocabulary."""
    value, size = getattr(config, name, None), _number(config, "vocab_size", 2)
    tokens = value if isinstance(value, list) else [value]
    return [token for token in tokens if isinstance(token, int) and 0 <= token < size]


def _decoder(config: Any, generator: torch.Generator) -> torch.Tensor:
    ids = _tokens(config, DECODER_TOKENS, generator)
    if start := _specials(config, "decoder_start_token_id"):
        ids[:, 0] = start[0]
    return ids


def _pixels(config: Any, image_size: Any, takes: Any, generator: torch.Generator) -> torch.Tensor:
    vision = next(
        (getattr(config, name) for name in ("vision_config", "backbone_config") if _has(config, name)), config
    )
    own = next((part.image_size for part in (config, vision) if _has(part, "image_size")), image_size)
    height, width = _height_and_width(own)
    channels = _number(vision, "num_channels", 3)
    frames = [_number(config, "num_frames", FRAMES)] if _has(config, "num_frames") else []
    return torch.randn(1, *frames, channels, height, width, generator=generator)


def _height_and_width(size: Any) -> tuple[int, int]:
    """Returns an image's height and width from a number, a pair, or a preprocessor's dict; ``IMAGE`` if unknown."""
    if isinstance(size, dict):
        size = (size.get("height", size.get("shortest_edge")), size.get("width", size.get("shortest_edge")))
    pair = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    if len(pair) == 2 and all(isinstance(number, int) and number > 0 for number in pair):
        return pair[0], pair[1]
    return IMAGE, IMAGE


def _audio(config: Any, generator: torch.Generator) -> torch.Tensor:
    """Returns one second at 16 kHz, or a spectrogram if the model takes one."""
    if _has(config, "num_mel_bins") and _has(config, "max_length"):
        return torch.randn(1, config.max_length, config.num_mel_bins, generator=generator)
    return torch.randn(1, SAMPLES, generator=generator)


def _features(config: Any, generator: torch.Generator) -> torch.Tensor:
    """Returns a spectrogram, with the length of the whole window if the model has one (Whisper)."""
    if _has(config, "max_source_positions"):
        return torch.randn(1, config.num_mel_bins, 2 * config.max_source_positions, generator=generator)
    return torch.randn(1, TOKENS, _number(config, "feature_projection_input_dim", 80), generator=generator)
