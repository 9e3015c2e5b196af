"""Diffusion: UNets, transformers and autoencoders of diffusers, any batch and any size of latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.row import Made, Row

GROUP = "diffusion"
LATENTS = "8:16:32"


def latents(channels: int = 4, size: int = 16) -> Tensor:
    return torch.randn(1, channels, size, size)


def text(length: int = 24, width: int = 32) -> Tensor:
    return torch.randn(1, length, width)


def _row(name: str, make: Callable[[], Made], dynamic: tuple[str, ...], precision: str | None = None) -> Row:
    return Row(name, GROUP, make, "diffusers", dynamic, precision)


def _any(name: str, sizes: str = LATENTS, dims: tuple[int, ...] = (2, 3)) -> tuple[str, ...]:
    return (f"{name}.0=1:1:4", *(f"{name}.{dim}={sizes}" for dim in dims))


def _batch(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}.0=1:1:4" for name in names)


_BLOCKS = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
_UNET = {
    **_BLOCKS, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "cross_attention_dim": 32,
    "attention_head_dim": 8,
}  # fmt: skip
_UP = {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}


def _sd() -> Made:
    from diffusers import UNet2DConditionModel

    call = {"sample": latents(), "timestep": torch.tensor([500]), "encoder_hidden_states": text()}
    return UNet2DConditionModel(**_UNET, **_UP), (), {**call, "return_dict": False}


def _sdxl() -> Made:
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        **_UNET, **_UP, use_linear_projection=True, transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=32 + 6 * 8,
    )  # fmt: skip
    added = {"text_embeds": torch.randn(1, 32), "time_ids": torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]])}
    call = {"sample": latents(), "timestep": torch.tensor([500]), "encoder_hidden_states": text()}
    return model, (), {**call, "added_cond_kwargs": added, "return_dict": False}


def _controlnet() -> Made:
    from diffusers import ControlNetModel

    model = ControlNetModel(**_UNET, conditioning_embedding_out_channels=(8, 16, 16, 32))
    call = {"sample": latents(), "timestep": torch.tensor([500]), "encoder_hidden_states": text()}
    return model, (), {**call, "controlnet_cond": torch.rand(1, 3, 128, 128), "return_dict": False}


def _ddpm() -> Made:
    from diffusers import UNet2DModel

    model = UNet2DModel(**_BLOCKS, down_block_types=("DownBlock2D", "AttnDownBlock2D"), attention_head_dim=8,
                        up_block_types=("AttnUpBlock2D", "UpBlock2D"))  # fmt: skip
    return model, (), {"sample": latents(3), "timestep": torch.tensor([500]), "return_dict": False}


def _sd3() -> Made:
    from diffusers import SD3Transformer2DModel

    model = SD3Transformer2DModel(sample_size=16, in_channels=4, num_layers=2, attention_head_dim=16, out_channels=4,
                                  num_attention_heads=4, joint_attention_dim=32, caption_projection_dim=64,
                                  pooled_projection_dim=32, pos_embed_max_size=24, qk_norm="rms_norm")  # fmt: skip
    call = {"hidden_states": latents(), "encoder_hidden_states": text(), "pooled_projections": torch.randn(1, 32)}
    return model, (), {**call, "timestep": torch.tensor([500.0]), "return_dict": False}


class Flux(nn.Module):
    """Flux with token places that are computed from the picture's sizes, as its pipeline does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor, text: Tensor, pooled: Tensor, timestep: Tensor, guidance: Tensor) -> Tensor:
        batch, channels = latents.shape[:2]
        height, width = latents.shape[2] // 2, latents.shape[3] // 2
        y = torch.arange(height)[:, None].expand(height, width)
        x = torch.arange(width)[None].expand(height, width)
        places = torch.stack([torch.zeros_like(y), y, x], -1).flatten(0, 1).float()
        parts = latents.view(batch, channels, height, 2, width, 2).permute(0, 2, 4, 1, 3, 5)
        tokens = parts.reshape(batch, height * width, 4 * channels)
        result: Tensor = self.model(
            hidden_states=tokens, encoder_hidden_states=text, pooled_projections=pooled, timestep=timestep,
            img_ids=places, txt_ids=torch.zeros(text.shape[1], 3), guidance=guidance, return_dict=False,
        )[0]  # fmt: skip
        return result


def _flux() -> Made:
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16,
                                   num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=16,
                                   guidance_embeds=True, axes_dims_rope=(4, 6, 6))  # fmt: skip
    return Flux(model), (latents(), text(), torch.randn(1, 16), torch.tensor([0.5]), torch.tensor([3.5]))


def _pixart() -> Made:
    from diffusers import PixArtTransformer2DModel

    model = PixArtTransformer2DModel(num_attention_heads=4, attention_head_dim=16, num_layers=2, cross_attention_dim=64,
                                     sample_size=16, caption_channels=32, use_additional_conditions=False)  # fmt: skip
    call = {"hidden_states": latents(), "encoder_hidden_states": text(), "timestep": torch.tensor([500])}
    added = {"resolution": None, "aspect_ratio": None}
    return model, (), {**call, "added_cond_kwargs": added, "return_dict": False}


def _dit() -> Made:
    from diffusers import DiTTransformer2DModel

    model = DiTTransformer2DModel(num_attention_heads=4, attention_head_dim=16, num_layers=2, sample_size=16)
    call = {"hidden_states": latents(), "timestep": torch.tensor([500]), "class_labels": torch.tensor([7])}
    return model, (), {**call, "return_dict": False}


def _sana() -> Made:
    from diffusers import SanaTransformer2DModel

    model = SanaTransformer2DModel(in_channels=4, out_channels=4, num_attention_heads=4, attention_head_dim=16,
                                   num_layers=2, num_cross_attention_heads=4, cross_attention_head_dim=16,
                                   cross_attention_dim=64, caption_channels=32, sample_size=16)  # fmt: skip
    call = {"hidden_states": latents(), "encoder_hidden_states": text(), "timestep": torch.tensor([500.0])}
    return model, (), {**call, "return_dict": False}


def _wan() -> Made:
    from diffusers import WanTransformer3DModel

    model = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=24, in_channels=4, out_channels=4,
                                  text_dim=32, freq_dim=16, ffn_dim=96, num_layers=2, rope_max_seq_len=64)  # fmt: skip
    call = {"hidden_states": torch.randn(1, 4, 3, 16, 16), "timestep": torch.tensor([500])}
    return model, (), {**call, "encoder_hidden_states": text(), "return_dict": False}


def _video() -> Made:
    from diffusers import UNetSpatioTemporalConditionModel

    model = UNetSpatioTemporalConditionModel(
        in_channels=8, block_out_channels=(32, 64), down_block_types=("CrossAttnDownBlockSpatioTemporal",
        "DownBlockSpatioTemporal"), up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=24, layers_per_block=1, cross_attention_dim=32,
        num_attention_heads=(2, 4), num_frames=4,
    )  # fmt: skip
    call = {"sample": torch.randn(1, 4, 8, 16, 16), "timestep": torch.tensor([500]), "encoder_hidden_states": text(1)}
    return model, (), {**call, "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]]), "return_dict": False}


class Half(nn.Module):
    """The encoder or the decoder of an autoencoder."""

    def __init__(self, model: Any, way: str) -> None:
        super().__init__()
        self.model, self.way = model, way

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "decode":
            picture: Tensor = self.model.decode(x, return_dict=False)[0]
            return picture
        result = self.model.encode(x, return_dict=False)[0]
        coded: Tensor = result.mode() if hasattr(result, "mode") and not isinstance(result, Tensor) else result
        return coded


def _kl(way: str) -> Made:
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        **_BLOCKS, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2
    )
    return Half(model, way), (latents() if way == "decode" else torch.rand(1, 3, 32, 32),)


def _tiny() -> Made:
    from diffusers import AutoencoderTiny

    model = AutoencoderTiny(encoder_block_out_channels=(16, 16), decoder_block_out_channels=(16, 16),
                            num_encoder_blocks=(1, 2), num_decoder_blocks=(2, 1))  # fmt: skip
    return Half(model, "decode"), (latents(),)


def _deep() -> Made:
    from diffusers import AutoencoderDC

    blocks = ("ResBlock", "EfficientViTBlock")
    model = AutoencoderDC(latent_channels=8, attention_head_dim=8, encoder_block_types=blocks,
                          decoder_block_types=blocks, encoder_block_out_channels=(16, 32),
                          decoder_block_out_channels=(16, 32), encoder_layers_per_block=(1, 1),
                          decoder_layers_per_block=(1, 1), encoder_qkv_multiscales=((), (5,)),
                          decoder_qkv_multiscales=((), (5,)))  # fmt: skip
    return Half(model, "decode"), (latents(8),)


_TIME_AND_TEXT = ("timestep.0=1:1:4", *("encoder_hidden_states.0=1:1:4", "encoder_hidden_states.1=8:24:77"))

ROWS = [
    _row("sd-unet", _sd, (*_any("sample"), *_TIME_AND_TEXT), "fp16"),
    _row("sdxl-unet", _sdxl, (*_any("sample"), *_TIME_AND_TEXT, *_batch("added_cond_kwargs.text_embeds",
         "added_cond_kwargs.time_ids"))),
    _row("controlnet", _controlnet, (*_batch("sample", "controlnet_cond"), *_TIME_AND_TEXT)),
    _row("ddpm-unet", _ddpm, (*_any("sample"), *_batch("timestep"))),
    _row("sd3", _sd3, (*_any("hidden_states"), *_TIME_AND_TEXT, *_batch("pooled_projections"))),
    _row("flux", _flux, (*_any("latents"), "text.0=1:1:4", "text.1=8:24:77",
         *_batch("pooled", "timestep", "guidance"))),
    _row("pixart", _pixart, (*_any("hidden_states"), *_TIME_AND_TEXT), "fp16"),
    _row("dit", _dit, _batch("hidden_states", "timestep", "class_labels"), "bf16"),
    _row("sana", _sana, (*_any("hidden_states"), *_TIME_AND_TEXT)),
    _row("wan-video", _wan, (*_any("hidden_states", dims=(3, 4)), *_TIME_AND_TEXT)),
    _row("svd-video-unet", _video, _batch("sample", "timestep", "encoder_hidden_states", "added_time_ids")),
    _row("vae-decoder", lambda: _kl("decode"), _any("x"), "fp16"),
    _row("vae-encoder", lambda: _kl("encode"), _any("x", "16:32:64")),
    _row("taesd-decoder", _tiny, _any("x"), "fp16"),
    _row("dc-ae-decoder", _deep, _any("x")),
]  # fmt: skip
