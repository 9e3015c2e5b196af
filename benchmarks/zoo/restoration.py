"""Super-resolution and restoration: architectures of spandrel, for pictures of any size, and one of transformers."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from benchmarks.zoo.row import Made, Row, batch, image

GROUP = "restoration"
ANY_SIZE = "32:48:80"


def _spandrel(name: str, family: str, architecture: str, *, argument: str = "x", channels: int = 3, size: int = 48,
              any_size: bool = True, precision: str | None = None, sizes: str = ANY_SIZE,
              **reduced: Any) -> Row:  # fmt: skip
    def make() -> Made:
        module = importlib.import_module(f"spandrel.architectures.{family}.__arch.{architecture.split('.')[0]}")
        model = getattr(module, architecture.split(".")[-1])(**reduced)
        return model, (torch.rand(1, channels, size, size),)

    return Row(name, GROUP, make, "spandrel", image(argument, sizes) if any_size else batch(argument), precision)


def _swin2sr() -> Made:
    import transformers

    config = transformers.Swin2SRConfig(
        image_size=32, embed_dim=32, depths=[2, 2], num_heads=[2, 2], window_size=8, upsampler="pixelshuffle", upscale=2
    )
    return transformers.Swin2SRForImageSuperResolution(config), (torch.rand(1, 3, 32, 32),)


def _lama() -> Made:
    from spandrel.architectures.LaMa.__arch.LaMa import LaMa

    return LaMa(in_nc=4), (torch.rand(1, 3, 64, 64), (torch.rand(1, 1, 64, 64) > 0.7).float())


_WINDOWS = {"embed_dim": 32, "depths": [2, 2], "num_heads": [2, 2], "window_size": 8, "mlp_ratio": 2.0}

ROWS = [
    _spandrel("esrgan", "ESRGAN", "RRDB.RRDBNet", precision="fp16", num_filters=32, num_blocks=2, scale=4),
    _spandrel("real-esrgan-compact", "Compact", "SRVGG.SRVGGNetCompact", num_feat=32, num_conv=6, upscale=4,
              precision="fp16"),
    _spandrel("swinir", "SwinIR", "SwinIR.SwinIR", img_size=32, upscale=2, upsampler="pixelshuffle", **_WINDOWS),
    _spandrel("hat", "HAT", "HAT.HAT", img_size=32, upscale=2, upsampler="pixelshuffle", squeeze_factor=8, **_WINDOWS),
    _spandrel("dat", "DAT", "DAT.DAT", img_size=32, embed_dim=32, depth=[2], num_heads=[2], split_size=[4, 8],
              expansion_factor=2.0, upscale=2),
    _spandrel("drct", "DRCT", "drct_arch.DRCT", img_size=32, upscale=2, upsampler="pixelshuffle", gc=16,
              **{**_WINDOWS, "depths": [6], "num_heads": [2]}),
    _spandrel("nafnet", "NAFNet", "NAFNet_arch.NAFNet", width=16, middle_blk_num=1, enc_blk_nums=[1, 1], argument="inp",
              dec_blk_nums=[1, 1], precision="fp16"),
    _spandrel("scunet", "SCUNet", "SCUNet.SCUNet", argument="x0", config=[1, 1, 1, 1, 1, 1, 1], dim=64, size=64,
              sizes="40:64:96"),
    _spandrel("span", "SPAN", "span.SPAN", num_in_ch=3, num_out_ch=3, feature_channels=24, upscale=2),
    _spandrel("omnisr", "OmniSR", "OmniSR.OmniSR", num_feat=32, block_num=1, res_num=1, up_scale=2),
    _spandrel("realplksr", "PLKSR", "RealPLKSR.RealPLKSR", dim=32, n_blocks=3, upscaling_factor=2, dysample=True,
              precision="fp16"),
    _spandrel("drunet", "DRUNet", "network_unet.DRUNet", argument="x0", in_nc=4, out_nc=3, nc=[16, 32, 48, 64],
              nb=1, channels=4),
    _spandrel("fbcnn", "FBCNN", "FBCNN.FBCNN", nb=1),
    Row("lama", GROUP, _lama, "spandrel", (*image("img", "64:64:96"), *image("mask", "64:64:96"))),
    _spandrel("rgt", "RGT", "rgt.RGT", img_size=32, embed_dim=32, depth=[2], num_heads=[2], split_size=[8, 8]),
    Row("swin2sr", GROUP, _swin2sr, "transformers", ("pixel_values.0=1:1:4",)),
]  # fmt: skip
