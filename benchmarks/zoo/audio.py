"""Speech and audio: recognisers, codecs and vocoders, of any length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from benchmarks.zoo.row import Made, Row

GROUP = "speech and audio"
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_CONVOLUTIONS = {
    "conv_dim": (16, 16, 16), "conv_kernel": (10, 3, 3), "conv_stride": (5, 4, 4), "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip


def signal(length: int = 4000) -> Tensor:
    return torch.randn(1, length, generator=torch.Generator().manual_seed(9))


def _row(name: str, make: Callable[[], Made], dynamic: tuple[str, ...], package: str | None = "transformers",
         precision: str | None = None) -> Row:  # fmt: skip
    return Row(name, GROUP, make, package, dynamic, precision)


def _waves(model: str, config: str, **changes: Any) -> Callable[[], Made]:
    def make() -> Made:
        import transformers

        made = getattr(transformers, config)(**{**_SMALL, **_CONVOLUTIONS, "vocab_size": 32, **changes})
        return getattr(transformers, model)(made), (), {"input_values": signal()}

    return make


def _whisper_config(hub: Any) -> Any:
    return hub.WhisperConfig(vocab_size=500, num_mel_bins=16, d_model=32, encoder_layers=2, decoder_layers=2,
                             encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64,
                             decoder_ffn_dim=64, max_source_positions=50, max_target_positions=64, use_cache=False,
                             pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)  # fmt: skip


def _whisper() -> Made:
    import transformers

    model = transformers.WhisperForConditionalGeneration(_whisper_config(transformers))
    words = torch.randint(3, 500, (1, 12), generator=torch.Generator().manual_seed(1))
    return model, (), {"input_features": torch.randn(1, 16, 100), "decoder_input_ids": words}


def _spectrogram() -> Made:
    import transformers

    config = transformers.ASTConfig(**_SMALL, max_length=128, num_mel_bins=32, num_labels=5)
    return transformers.ASTForAudioClassification(config), (), {"input_values": torch.randn(1, 128, 32)}


class Codes(nn.Module):
    """A codec's decoder, from codes to sound."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, codes: Tensor) -> Tensor:
        sound: Tensor = self.model.decode(audio_codes=codes).audio_values
        return sound


def _dac() -> Made:
    import transformers

    config = transformers.DacConfig(encoder_hidden_size=8, downsampling_ratios=[2, 4], decoder_hidden_size=32,
                                    n_codebooks=2, codebook_size=64, codebook_dim=4,
                                    upsampling_ratios=[4, 2])  # fmt: skip
    return Codes(transformers.DacModel(config)), (
        torch.randint(0, 64, (1, 2, 50), generator=torch.Generator().manual_seed(1)),
    )


# From papers


class _Dilated(nn.Module):
    def __init__(self, width: int, size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.pairs = nn.ModuleList(
            nn.ModuleList(
                nn.utils.parametrizations.weight_norm(
                    nn.Conv1d(width, width, size, dilation=d, padding=(size - 1) * d // 2)
                )
                for d in (dilation, 1)
            )
            for dilation in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        for pair in self.pairs:
            y = x
            for convolution in pair:
                y = convolution(F.leaky_relu(y, 0.1))
            x = x + y
        return x


class Vocoder(nn.Module):
    """HiFi-GAN's generator (Kong et al., 2020): upsampling in steps, each followed by a mean over kernel sizes."""

    def __init__(self, bands: int = 16, width: int = 32, rates: tuple[int, ...] = (8, 4, 2)) -> None:
        super().__init__()
        self.first = nn.Conv1d(bands, width, 7, padding=3)
        self.up, self.fields = nn.ModuleList(), nn.ModuleList()
        for rate in rates:
            self.up.append(nn.ConvTranspose1d(width, width // 2, 2 * rate, rate, rate // 2))
            width //= 2
            self.fields.append(nn.ModuleList(_Dilated(width, size, (1, 3, 5)) for size in (3, 7)))
        self.last = nn.Conv1d(width, 1, 7, padding=3)

    def forward(self, bands: Tensor) -> Tensor:
        x = self.first(bands)
        for up, fields in zip(self.up, self.fields, strict=True):
            x = up(F.leaky_relu(x, 0.1))
            x = torch.stack([field(x) for field in fields]).mean(0)
        return self.last(F.leaky_relu(x)).tanh()


class _Block(nn.Module):
    """A dilated separable convolution, with a residual and a skip output."""

    def __init__(self, width: int, inner: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(width, inner, 1), nn.PReLU(), nn.GroupNorm(1, inner),
            nn.Conv1d(inner, inner, 3, dilation=dilation, padding=dilation, groups=inner), nn.PReLU(),
            nn.GroupNorm(1, inner),
        )  # fmt: skip
        self.rest, self.skip = nn.Conv1d(inner, width, 1), nn.Conv1d(inner, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.layers(x)
        return x + self.rest(y), self.skip(y)


class Separator(nn.Module):
    """Conv-TasNet (Luo and Mesgarani, 2019): separates sources by masks over learnt frames."""

    def __init__(self, sources: int = 2, width: int = 32, window: int = 16) -> None:
        super().__init__()
        self.sources, self.width = sources, width
        self.encode = nn.Conv1d(1, width, window, window // 2, bias=False)
        self.norm, self.narrow = nn.GroupNorm(1, width), nn.Conv1d(width, 24, 1)
        self.blocks = nn.ModuleList(_Block(24, 48, 2**place) for place in range(4))
        self.mask = nn.Sequential(nn.PReLU(), nn.Conv1d(24, sources * width, 1), nn.Sigmoid())
        self.decode = nn.ConvTranspose1d(width, 1, window, window // 2, bias=False)

    def forward(self, sound: Tensor) -> Tensor:
        frames = self.encode(sound.unsqueeze(1)).relu()
        x, total = self.narrow(self.norm(frames)), 0
        for block in self.blocks:
            x, skip = block(x)
            total = total + skip
        masks = self.mask(total).unflatten(1, (self.sources, self.width))
        parts = (masks * frames.unsqueeze(1)).flatten(0, 1)
        return self.decode(parts).unflatten(0, (-1, self.sources)).squeeze(2)


class Recurrent(nn.Module):
    """DeepSpeech 2 (Amodei et al., 2016): convolutions and bidirectional recurrent layers over a spectrogram."""

    def __init__(self, bands: int = 32, hidden: int = 24, words: int = 29) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 8, (5, 5), (2, 2), (2, 2)), nn.BatchNorm2d(8), nn.Hardtanh(0, 20)
        )
        self.recurrent = nn.GRU(8 * bands // 2, hidden, 2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * hidden, words)

    def forward(self, bands: Tensor) -> Tensor:
        x = self.convolutions(bands.unsqueeze(1)).transpose(1, 2).flatten(2)
        x, _ = self.recurrent(x)
        return self.out(x).log_softmax(-1)


_SOUND = ("input_values.0=1:1:4", "input_values.1=2000:4000:8000")

ROWS = [
    _row("wav2vec2", _waves("Wav2Vec2ForCTC", "Wav2Vec2Config"), _SOUND),
    _row("hubert", _waves("HubertModel", "HubertConfig"), _SOUND, precision="fp16"),
    _row("wavlm", _waves("WavLMModel", "WavLMConfig", num_buckets=32, max_bucket_distance=80), _SOUND),
    _row("whisper", _whisper, ("input_features.0=1:1:4", "decoder_input_ids.0=1:1:4", "decoder_input_ids.1=2:12:48")),
    _row("audio-spectrogram-transformer", _spectrogram, ("input_values.0=1:1:4",), precision="fp16"),
    _row("dac-decoder", _dac, ("codes.0=1:1:4", "codes.2=20:50:100")),
    _row("hifi-gan", lambda: (Vocoder(), (torch.randn(1, 16, 50),)), ("bands.0=1:1:4", "bands.2=20:50:100"), None,
         "fp16"),
    _row("conv-tasnet", lambda: (Separator(), (signal(),)), ("sound.0=1:1:4", "sound.1=2000:4000:8000"), None),
    _row("deep-speech-2", lambda: (Recurrent(), (torch.randn(1, 20, 32),)), ("bands.0=1:1:4",), None),
]  # fmt: skip
