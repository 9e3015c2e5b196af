"""Text encoders of transformers, and encoders of pictures and text, with any batch and any length."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.zoo.row import Made, Row

GROUP = "text encoders"
WORDS = 500
LENGTHS = "8:32:64"
_SMALL = {
    "vocab_size": WORDS, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
}  # fmt: skip


def words(length: int = 32, rows: int = 1) -> torch.Tensor:
    return torch.randint(3, WORDS, (rows, length), generator=torch.Generator().manual_seed(1))


def mask(length: int = 32, rows: int = 1) -> torch.Tensor:
    """Returns an attention mask whose last quarter is padding."""
    return (torch.arange(length) < length - length // 4).long().expand(rows, length).contiguous()


def texts(*names: str, lengths: str = LENGTHS) -> tuple[str, ...]:
    return tuple(f"{name}.{dim}={sizes}" for name in names for dim, sizes in ((0, "1:1:4"), (1, lengths)))


def _encoder(name: str, model: str, config: str, *, precision: str | None = None, kinds: bool = False,
             lengths: str = LENGTHS, **changes: Any) -> Row:  # fmt: skip
    def make() -> Made:
        import transformers

        made = getattr(transformers, model)(getattr(transformers, config)(**{**_SMALL, **changes}))
        call = {"input_ids": words(), "attention_mask": mask()}
        if kinds:
            call["token_type_ids"] = (torch.arange(32) > 12).long()[None]
        return made, (), call

    names = ("input_ids", "attention_mask", *(("token_type_ids",) if kinds else ()))
    return Row(name, GROUP, make, "transformers", texts(*names, lengths=lengths), precision)


def _clip_text() -> Made:
    import transformers

    config = transformers.CLIPTextConfig(**_SMALL, max_position_embeddings=77, projection_dim=64, eos_token_id=2)
    ids = words()
    ids[:, -5] = 2
    return transformers.CLIPTextModelWithProjection(config), (), {"input_ids": ids, "attention_mask": mask()}


def _siglip() -> Made:
    import transformers

    text = {**_SMALL, "max_position_embeddings": 64}
    vision = {key: value for key, value in _SMALL.items() if key != "vocab_size"} | {"image_size": 64, "patch_size": 16}
    config = transformers.SiglipConfig(text_config=text, vision_config=vision)
    return transformers.SiglipModel(config), (), {"input_ids": words(64), "pixel_values": torch.randn(1, 3, 64, 64)}


def _clip() -> Made:
    import transformers

    text = {**_SMALL, "max_position_embeddings": 77, "eos_token_id": 2}
    vision = {key: value for key, value in _SMALL.items() if key != "vocab_size"} | {"image_size": 64, "patch_size": 16}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)
    call = {"input_ids": words(), "pixel_values": torch.randn(1, 3, 64, 64), "attention_mask": mask()}
    return transformers.CLIPModel(config), (), call


def _t5(model: str) -> Made:
    import transformers

    config = transformers.T5Config(vocab_size=WORDS, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4,
                                   feed_forward_proj="gated-gelu", use_cache=False)  # fmt: skip
    return getattr(transformers, model)(config), (), {"input_ids": words(), "attention_mask": mask()}


def _bart() -> Made:
    import transformers

    config = transformers.BartConfig(vocab_size=WORDS, d_model=64, encoder_layers=2, decoder_layers=2,
                                     encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128,
                                     decoder_ffn_dim=128, use_cache=False, max_position_embeddings=128)  # fmt: skip
    call = {"input_ids": words(), "attention_mask": mask(), "decoder_input_ids": words(16)}
    return transformers.BartForConditionalGeneration(config), (), call


_VARIABLE = ("input_ids", "attention_mask")

ROWS = [
    _encoder("bert", "BertForMaskedLM", "BertConfig", kinds=True, precision="fp16"),
    _encoder("bert-classification", "BertForSequenceClassification", "BertConfig", kinds=True, num_labels=5),
    _encoder("roberta", "RobertaForTokenClassification", "RobertaConfig", num_labels=5),
    _encoder("xlm-roberta-question-answering", "XLMRobertaForQuestionAnswering", "XLMRobertaConfig"),
    _encoder("distilbert", "DistilBertForSequenceClassification", "DistilBertConfig", dim=64, n_layers=2, n_heads=4,
             hidden_dim=128, num_labels=5),
    _encoder("albert", "AlbertModel", "AlbertConfig", kinds=True, embedding_size=32),
    _encoder("electra", "ElectraForPreTraining", "ElectraConfig", kinds=True, embedding_size=32),
    _encoder("deberta-v2", "DebertaV2Model", "DebertaV2Config", relative_attention=True, position_buckets=16,
             pos_att_type=["p2c", "c2p"], norm_rel_ebd="layer_norm", share_att_key=True, position_biased_input=False),
    _encoder("mpnet", "MPNetModel", "MPNetConfig", precision="fp16"),
    _encoder("modernbert", "ModernBertModel", "ModernBertConfig", num_hidden_layers=3, global_attn_every_n_layers=3,
             local_attention=16, pad_token_id=0),
    _encoder("nomic-like-rotary", "EsmModel", "EsmConfig", position_embedding_type="rotary", pad_token_id=1,
             mask_token_id=2, max_position_embeddings=128),
    _encoder("longformer-like-funnel", "FNetModel", "FNetConfig"),
    Row("t5-encoder", GROUP, lambda: _t5("T5EncoderModel"), "transformers", texts(*_VARIABLE), "bf16"),
    Row("bart", GROUP, _bart, "transformers", texts(*_VARIABLE, "decoder_input_ids")),
    Row("clip-text", GROUP, _clip_text, "transformers", texts(*_VARIABLE)),
    Row("clip", GROUP, _clip, "transformers",
        (*texts(*_VARIABLE), "pixel_values.0=1:1:4"), "fp16"),
    Row("siglip", GROUP, _siglip, "transformers", ("input_ids.0=1:1:4", "pixel_values.0=1:1:4")),
]  # fmt: skip
