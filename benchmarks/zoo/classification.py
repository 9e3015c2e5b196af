"""Image classification: families of timm and torchvision, with a few blocks in each stage."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.zoo.row import Made, Row, batch, image

GROUP = "classification"
ANY_SIZE = "64:96:160"


def _timm(name: str, architecture: str, *, any_size: bool = False, size: int = 96, precision: str | None = None,
          **reduced: Any) -> Row:  # fmt: skip
    """Makes a row of timm with batches from 1.

    Args:
        any_size: whether height and width may vary, as for users of the architecture.
    """

    def make() -> Made:
        import timm

        model = timm.create_model(architecture, pretrained=False, num_classes=10, **reduced)
        return model, (torch.randn(1, 3, size, size),)

    dynamic = image("x", ANY_SIZE) if any_size else batch("x")
    return Row(name, GROUP, make, "timm", dynamic, precision)


def _torchvision(name: str, *, any_size: bool = True, size: int = 96, precision: str | None = None,
                 argument: str = "x", **arguments: Any) -> Row:  # fmt: skip
    def make() -> Made:
        import torchvision

        model = getattr(torchvision.models, name)(weights=None, num_classes=10, **arguments)
        return model, (torch.randn(1, 3, size, size),)

    return Row(name, GROUP, make, "torchvision", image(argument, ANY_SIZE) if any_size else batch(argument), precision)


_SMALL = {"embed_dim": 64, "depth": 3, "num_heads": 2}
_STAGES = {"depths": (1, 1, 2, 1), "dims": (32, 48, 64, 96)}

ROWS = [
    _timm("convnext", "convnext_tiny", any_size=True, **_STAGES),
    _timm("convnextv2", "convnextv2_atto", any_size=True, precision="fp16", **_STAGES),
    _timm("vit", "vit_small_patch16_224", img_size=96, **_SMALL),
    _timm("vit-any-size", "vit_small_patch16_224", any_size=True, img_size=96, dynamic_img_size=True, **_SMALL),
    _timm("vit-dinov2-registers", "vit_small_patch14_reg4_dinov2", size=98, img_size=98, **_SMALL),
    _timm("deit3", "deit3_small_patch16_224", precision="fp16", img_size=96, **_SMALL),
    _timm("swin", "swin_tiny_patch4_window7_224", size=112, img_size=112, window_size=7, embed_dim=32,
          depths=(2, 2, 2), num_heads=(1, 2, 4)),
    _timm("swinv2", "swinv2_tiny_window8_256", size=128, img_size=128, embed_dim=32, depths=(2, 2, 2),
          num_heads=(1, 2, 4)),
    _timm("maxvit", "maxvit_rmlp_pico_rw_256", size=128, img_size=128, depths=(1, 1, 1, 1), embed_dim=(32, 32, 64, 64)),
    _timm("coatnet", "coatnet_nano_rw_224", size=128, img_size=128, depths=(1, 1, 2, 1), embed_dim=(32, 64, 96, 128)),
    _timm("efficientnet", "efficientnet_b0", any_size=True, precision="fp16"),
    _timm("efficientnetv2", "efficientnetv2_rw_t", any_size=True),
    _timm("regnet", "regnety_002", any_size=True),
    _timm("mobilenetv3", "mobilenetv3_small_050", any_size=True),
    _timm("mobilenetv4", "mobilenetv4_hybrid_medium", size=128),
    _timm("fastvit", "fastvit_t8", any_size=True, layers=(1, 1, 1, 1)),
    _timm("edgenext", "edgenext_xx_small", any_size=True),
    _timm("mambaout", "mambaout_femto", any_size=True, **_STAGES),
    _timm("xcit", "xcit_nano_12_p16_224", any_size=True, depth=3, embed_dim=64),
    _timm("pvt_v2", "pvt_v2_b0", any_size=True, depths=(1, 1, 1, 1)),
    _timm("hiera", "hiera_tiny_224", size=224, embed_dim=32, stages=(1, 1, 2, 1)),
    _timm("tiny_vit", "tiny_vit_5m_224", size=224, depths=(1, 1, 2, 1), embed_dims=(32, 64, 96, 128),
          num_heads=(1, 2, 3, 4)),
    _timm("eva02", "eva02_tiny_patch14_224", size=98, img_size=98, embed_dim=64, depth=3, num_heads=2),
    _timm("levit", "levit_128s", size=224),
    _timm("poolformer", "poolformer_s12", any_size=True),
    _timm("nextvit", "nextvit_small", any_size=True, depths=(1, 1, 5, 1)),
    _timm("repvgg", "repvgg_a0", any_size=True),
    _timm("ghostnet", "ghostnetv2_100", any_size=True),
    _timm("hgnet", "hgnetv2_b0", any_size=True),
    _timm("inception_next", "inception_next_atto", any_size=True, precision="fp16", **_STAGES),
    _timm("densenet", "densenet121", any_size=True, growth_rate=8, block_config=(2, 2, 2, 2)),
    _timm("davit", "davit_tiny", any_size=True, depths=(1, 1, 1, 1), embed_dims=(32, 48, 64, 96),
          num_heads=(1, 2, 2, 3)),
    _timm("beit", "beit_base_patch16_224", img_size=96, **_SMALL),
    _timm("cait", "cait_xxs24_224", img_size=96, **_SMALL),
    _timm("volo", "volo_d1_224", size=224),
    _timm("focalnet", "focalnet_tiny_srf", any_size=True),
    _timm("mvitv2", "mvitv2_tiny", size=224),
    _timm("sequencer2d", "sequencer2d_s", size=224, layers=(1, 1, 1, 1), embed_dims=(32, 48, 48, 48),
          hidden_sizes=(8, 12, 12, 12)),
    _timm("gcvit", "gcvit_xxtiny", size=224),
    _timm("twins", "twins_svt_small", any_size=True, depths=(1, 1, 2, 1), embed_dims=(32, 64, 96, 128),
          num_heads=(1, 2, 3, 4)),
    _timm("nest", "nest_tiny_jx", size=224),
    _torchvision("resnet18"),
    _torchvision("googlenet", init_weights=False, aux_logits=False),
    _torchvision("shufflenet_v2_x0_5"),
]  # fmt: skip
