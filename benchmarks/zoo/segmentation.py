"""Dense prediction, segmentation, and detection without its post-processing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from benchmarks.zoo.row import Made, Row, batch, image

GROUP = "segmentation"
ANY_SIZE = "64:96:160"


def picture(height: int = 96, width: int | None = None) -> Tensor:
    return torch.randn(1, 3, height, width or height)


def _row(name: str, make: Callable[[], Made], package: str | None, dynamic: tuple[str, ...],
         precision: str | None = None) -> Row:  # fmt: skip
    return Row(name, GROUP, make, package, dynamic, precision)


def _hugging(model: str, config: Callable[[Any], Any], size: int = 96) -> Callable[[], Made]:
    def make() -> Made:
        import transformers

        return getattr(transformers, model)(config(transformers)), (), {"pixel_values": picture(size)}

    return make


# torchvision


def _torchvision_segmentation(name: str) -> Callable[[], Made]:
    def make() -> Made:
        from torchvision.models import segmentation

        return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=5), (picture(),)

    return make


class Heads(nn.Module):
    """A detector of torchvision, up to its raw boxes and classes."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.head(list(self.backbone(x).values()))
        return found


def _retinanet() -> Made:
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    return Heads(RetinaNet(backbone, num_classes=5)), (picture(),)


def _ssdlite() -> Made:
    from torchvision.models import detection

    made = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
    return Heads(made), (picture(320),)


# transformers

_VIT = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}


def _segformer(hub: Any) -> Any:
    return hub.SegformerConfig(num_encoder_blocks=4, depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 48, 64],
                               num_attention_heads=[1, 2, 3, 4], decoder_hidden_size=32, num_labels=5)  # fmt: skip


def _upernet(hub: Any) -> Any:
    backbone = hub.ConvNextConfig(hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1],
                                  out_features=["stage1", "stage2", "stage3", "stage4"])  # fmt: skip
    return hub.UperNetConfig(backbone_config=backbone, hidden_size=32, num_labels=5, auxiliary_in_channels=48)


def _swin_backbone(hub: Any) -> Any:
    return hub.SwinConfig(image_size=96, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=3,
                          out_features=["stage1", "stage2", "stage3", "stage4"])  # fmt: skip


def _mask2former(hub: Any) -> Any:
    return hub.Mask2FormerConfig(backbone_config=_swin_backbone(hub), feature_size=32, mask_feature_size=32,
                                 hidden_dim=32, encoder_feedforward_dim=64, encoder_layers=1, decoder_layers=2,
                                 num_attention_heads=2, dim_feedforward=64, num_queries=10, num_labels=5)  # fmt: skip


def _maskformer(hub: Any) -> Any:
    decoder = hub.DetrConfig(d_model=32, decoder_layers=2, encoder_layers=0, decoder_attention_heads=2,
                             decoder_ffn_dim=64, num_queries=10, use_timm_backbone=False,
                             backbone_config=hub.ResNetConfig())  # fmt: skip
    return hub.MaskFormerConfig(backbone_config=_swin_backbone(hub), decoder_config=decoder, fpn_feature_size=32,
                                mask_feature_size=32, num_labels=5)  # fmt: skip


def _dpt(hub: Any) -> Any:
    return hub.DPTConfig(**_VIT, image_size=96, patch_size=16, backbone_out_indices=[0, 1, 2, 3], fusion_hidden_size=32,
                         neck_hidden_sizes=[16, 32, 48, 64])  # fmt: skip


def _depth_anything(hub: Any) -> Any:
    backbone = hub.Dinov2Config(**_VIT, image_size=98, patch_size=14, out_features=["stage1", "stage2", "stage3",
                                "stage4"], reshape_hidden_states=False, apply_layernorm=True)  # fmt: skip
    return hub.DepthAnythingConfig(backbone_config=backbone, reassemble_hidden_size=64, neck_hidden_sizes=[8, 16, 32,
                                   32], fusion_hidden_size=16, head_hidden_size=8, patch_size=14)  # fmt: skip


def _resnet(hub: Any) -> Any:
    return hub.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], layer_type="basic",
                            out_features=["stage2", "stage3", "stage4"])  # fmt: skip


def _detr(hub: Any) -> Any:
    backbone = _resnet(hub)
    backbone.out_features = ["stage4"]
    return hub.DetrConfig(use_timm_backbone=False, backbone_config=backbone, d_model=32, encoder_layers=1,
                          decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64,
                          decoder_ffn_dim=64, num_queries=10, num_labels=5)  # fmt: skip


def _deformable_detr(hub: Any) -> Any:
    return hub.DeformableDetrConfig(use_timm_backbone=False, backbone_config=_resnet(hub), d_model=32, encoder_layers=1,
                                    decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
                                    encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=10, num_labels=5,
                                    num_feature_levels=3, with_box_refine=False)  # fmt: skip


def _rt_detr(hub: Any) -> Any:
    backbone = hub.RTDetrResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1],
                                      layer_type="basic", out_features=["stage2", "stage3", "stage4"])  # fmt: skip
    return hub.RTDetrConfig(backbone_config=backbone, encoder_hidden_dim=32, encoder_in_channels=[32, 48, 64],
                            encoder_ffn_dim=64, encoder_attention_heads=2, d_model=32, num_queries=20,
                            decoder_in_channels=[32, 32, 32], decoder_ffn_dim=64, decoder_layers=2,
                            decoder_attention_heads=2, num_denoising=0, num_labels=5)  # fmt: skip


def _yolos(hub: Any) -> Any:
    return hub.YolosConfig(**_VIT, image_size=[96, 96], patch_size=16, num_detection_tokens=10, num_labels=5)


def _sam_vision() -> Made:
    import transformers

    config = transformers.SamVisionConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, mlp_dim=128,
                                          image_size=128, patch_size=16, output_channels=32, window_size=4,
                                          global_attn_indexes=[1])  # fmt: skip
    return transformers.SamVisionModel(config), (), {"pixel_values": picture(128)}


class Masks(nn.Module):
    """SAM's decoder, from an image's embedding and points to masks."""

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.sam = sam

    def forward(self, embeddings: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        result = self.sam(image_embeddings=embeddings, input_points=points, input_labels=labels)
        return result.pred_masks, result.iou_scores


def _sam_decoder() -> Made:
    import transformers

    vision = transformers.SamVisionConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        mlp_dim=64,
        image_size=128,
        patch_size=16,
        output_channels=32,
    )
    prompts = transformers.SamPromptEncoderConfig(hidden_size=32, image_size=128, patch_size=16)
    decoder = transformers.SamMaskDecoderConfig(
        hidden_size=32, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=32
    )
    vision.num_pos_feats = 16
    config = transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    points = torch.tensor([[[[20.0, 30.0], [90.0, 100.0]]]])
    labels = torch.tensor([[[1, 0]]])
    return Masks(transformers.SamModel(config)), (torch.randn(1, 32, 8, 8), points, labels)


# From papers


class _Twice(nn.Sequential):
    def __init__(self, inner: int, outer: int) -> None:
        layers: list[nn.Module] = []
        for channels in (inner, outer):
            layers += [nn.Conv2d(channels, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]
        super().__init__(*layers)


class UNet(nn.Module):
    """U-Net (Ronneberger et al., 2015); features are padded to their skips, so that pictures may have any size."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48, 64)) -> None:
        super().__init__()
        self.down = nn.ModuleList(_Twice(a, b) for a, b in zip((3, *widths), widths, strict=False))
        pairs = list(zip(widths[1:], widths, strict=False))[::-1]
        self.raise_ = nn.ModuleList(nn.ConvTranspose2d(low, high, 2, stride=2) for low, high in pairs)
        self.up = nn.ModuleList(_Twice(2 * high, high) for _, high in pairs)
        self.out = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for enlarge, block, skip in zip(self.raise_, self.up, skips[-2::-1], strict=True):
            x = enlarge(x)
            x = F.pad(x, (0, skip.shape[3] - x.shape[3], 0, skip.shape[2] - x.shape[2]))
            x = block(torch.cat([skip, x], 1))
        result: Tensor = self.out(x)
        return result


class _Unit(nn.Sequential):
    def __init__(self, inner: int, outer: int, size: int = 3, stride: int = 1) -> None:
        convolution = nn.Conv2d(inner, outer, size, stride, size // 2, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outer), nn.SiLU())


class _Partial(nn.Module):
    """A cross-stage partial block: half of the channels pass through bottlenecks, and every step's result is used."""

    def __init__(self, inner: int, outer: int, depth: int = 1, add: bool = True) -> None:
        super().__init__()
        self.add = add
        self.first = _Unit(inner, outer, 1)
        half = outer // 2
        self.steps = nn.ModuleList(nn.Sequential(_Unit(half, half), _Unit(half, half)) for _ in range(depth))
        self.last = _Unit(outer + depth * half, outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for step in self.steps:
            parts.append(parts[-1] + step(parts[-1]) if self.add else step(parts[-1]))
        result: Tensor = self.last(torch.cat(parts, 1))
        return result


class Yolo(nn.Module):
    """An anchor-free detector with a path aggregation neck; boxes are means of distributions (Li et al., 2020)."""

    def __init__(self, classes: int = 5, bins: int = 16, width: int = 16) -> None:
        super().__init__()
        self.classes, self.bins = classes, bins
        a, b, c, d = width, 2 * width, 3 * width, 4 * width
        self.stem = nn.Sequential(_Unit(3, a, stride=2), _Unit(a, a, stride=2), _Partial(a, a))
        self.stages = nn.ModuleList(
            nn.Sequential(_Unit(i, o, stride=2), _Partial(i * 0 + o, o)) for i, o in ((a, b), (b, c), (c, d))
        )
        self.squeeze = _Unit(d, d // 2, 1)
        self.pooled = _Unit(2 * d, d, 1)
        self.up = nn.ModuleList([_Partial(d + c, c, add=False), _Partial(c + b, b, add=False)])
        self.shrink = nn.ModuleList([_Unit(b, b, stride=2), _Unit(c, c, stride=2)])
        self.down = nn.ModuleList([_Partial(b + c, c, add=False), _Partial(c + d, d, add=False)])
        self.heads = nn.ModuleList(nn.Conv2d(width, 4 * bins + classes, 1) for width in (b, c, d))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        small, middle, large = levels
        y = self.squeeze(large)
        pools = [y]
        for _ in range(3):
            pools.append(F.max_pool2d(pools[-1], 5, 1, 2))
        large = self.pooled(torch.cat(pools, 1))
        middle = self.up[0](torch.cat([F.interpolate(large, scale_factor=2.0), middle], 1))
        small = self.up[1](torch.cat([F.interpolate(middle, scale_factor=2.0), small], 1))
        middle = self.down[0](torch.cat([self.shrink[0](small), middle], 1))
        large = self.down[1](torch.cat([self.shrink[1](middle), large], 1))
        boxes, scores = [], []
        for level, (features, head) in enumerate(zip((small, middle, large), self.heads, strict=True)):
            box, score = self._decoded(head(features), 8 * 2**level)
            boxes.append(box)
            scores.append(score)
        return torch.cat(boxes, 1), torch.cat(scores, 1)

    def _decoded(self, raw: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        height, width = raw.shape[-2:]
        raw = raw.flatten(2).transpose(1, 2)
        bins, scores = raw.split([4 * self.bins, self.classes], -1)
        weights = bins.unflatten(-1, (4, self.bins)).softmax(-1)
        distances = weights @ torch.arange(self.bins, dtype=raw.dtype)
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        centres = torch.stack([x.flatten(), y.flatten()], -1)
        box = torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], -1) * stride
        return box, scores.sigmoid()


_PIXELS = image("pixel_values", ANY_SIZE)
_BATCH = batch("pixel_values")

ROWS = [
    _row("deeplabv3", _torchvision_segmentation("deeplabv3_mobilenet_v3_large"), "torchvision", image("x", ANY_SIZE)),
    _row("lraspp", _torchvision_segmentation("lraspp_mobilenet_v3_large"), "torchvision", image("input", ANY_SIZE),
         "fp16"),
    _row("retinanet", _retinanet, "torchvision", image("x", ANY_SIZE)),
    _row("ssdlite", _ssdlite, "torchvision", batch("x")),
    _row("segformer", _hugging("SegformerForSemanticSegmentation", _segformer), "transformers", _PIXELS, "fp16"),
    _row("upernet", _hugging("UperNetForSemanticSegmentation", _upernet), "transformers", _PIXELS),
    _row("mask2former", _hugging("Mask2FormerForUniversalSegmentation", _mask2former), "transformers", _BATCH),
    _row("maskformer", _hugging("MaskFormerForInstanceSegmentation", _maskformer), "transformers", _BATCH),
    _row("dpt", _hugging("DPTForDepthEstimation", _dpt), "transformers", _BATCH),
    _row("depth-anything", _hugging("DepthAnythingForDepthEstimation", _depth_anything, 98), "transformers",
         image("pixel_values", "70:98:140"), "fp16"),
    _row("detr", _hugging("DetrForObjectDetection", _detr), "transformers", _BATCH),
    _row("deformable-detr", _hugging("DeformableDetrForObjectDetection", _deformable_detr), "transformers", _BATCH),
    _row("rt-detr", _hugging("RTDetrForObjectDetection", _rt_detr), "transformers", _BATCH),
    _row("yolos", _hugging("YolosForObjectDetection", _yolos), "transformers", _BATCH),
    _row("sam-image-encoder", _sam_vision, "transformers", _BATCH, "fp16"),
    _row("sam-mask-decoder", _sam_decoder, "transformers", ("points.2=1:2:8", "labels.2=1:2:8")),
    _row("unet", lambda: (UNet(), (picture(),)), None, image("x", ANY_SIZE), "fp16"),
    _row("yolo", lambda: (Yolo(), (picture(),)), None, image("x", ANY_SIZE)),
]  # fmt: skip
