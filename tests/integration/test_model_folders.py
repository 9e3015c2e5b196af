"""Hugging Face model folders: tiny models that transformers itself saved, built with the real builder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from linux_side.frontend.hub.folder import open_folder
from linux_side.frontend.hub.loading import load_model
from linux_side.frontend.source import load_source
from linux_side.options import BuildOptions
from tests.conftest import Trtcross
from tests.integration.harness import Built, build_source, imported_builder
from toolchain.artifact import open_artifact
from toolchain.errors import BuildFailedError, UsageError

transformers: Any = pytest.importorskip("transformers", reason="NO TRANSFORMERS HERE: no model folder was built")
pytestmark = [pytest.mark.rtx, pytest.mark.xdist_group("model folders")]

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
VOCABULARY = {"vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def bert(path: Path) -> None:
    _save(transformers.BertForMaskedLM(transformers.BertConfig(**SIZES, **VOCABULARY)), path)


def llama(path: Path) -> None:
    """Writes the folder of a Llama model in several parts."""
    config = transformers.LlamaConfig(**SIZES, **VOCABULARY, num_key_value_heads=2)
    _save(transformers.LlamaForCausalLM(config), path, max_shard_size="20KB")


def vit(path: Path) -> None:
    _save(transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES, image_size=32, patch_size=8)), path)


def _save(model: Any, path: Path, **options: Any) -> None:
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.eval().save_pretrained(path, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("models") / name
            globals()[name](made[name])
        return made[name]

    yield get


def built(path: Path, task: str, place: Path, **options: Any) -> Built:
    parsed = BuildOptions(task=task, **options)
    return build_source(load_source(str(path), parsed), parsed, imported_builder(), place)


def assert_right_at(artifact: Built, model: Any, inputs: dict[str, torch.Tensor]) -> None:
    wanted, found = model(**inputs), artifact.run_networks(**inputs)
    assert list(found) == list(wanted)
    for name in wanted:
        assert (found[name] - wanted[name]).norm() <= 2e-5 * wanted[name].norm(), name


def test_a_masked_language_model_is_right_at_every_size(folder: Callable[[str], Path], tmp_path: Path) -> None:
    path, names = folder("bert"), ("input_ids", "attention_mask", "token_type_ids")
    dynamic = [f"{name}.{dim}" for name in names for dim in ("0=1:2:8", "1=8:32:64")]
    artifact = built(path, "fill-mask", tmp_path, dynamic=dynamic)
    manifest = artifact.artifact.manifest
    assert len(manifest.engines) == 1 and not manifest.fallback and manifest.model.name == "bert"
    assert [spec.name for spec in manifest.inputs] == list(names) and manifest.settings["task"] == "fill-mask"
    model = transformers.BertForMaskedLM.from_pretrained(path)
    for batch, length in ((1, 8), (3, 33)):
        ids = torch.randint(3, 100, (batch, length))
        mask = (torch.arange(length) < torch.randint(1, length, (batch, 1))).long()
        kinds = torch.randint(2, (batch, length))
        assert_right_at(artifact, model, {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds})


def test_a_causal_model_in_parts_gives_logits_and_no_cache(folder: Callable[[str], Path], tmp_path: Path) -> None:
    path = folder("llama")
    assert len(list(path.glob("model-*.safetensors"))) > 1
    artifact = built(path, "text-generation", tmp_path)
    assert [spec.name for spec in artifact.artifact.manifest.outputs] == ["output.logits"]
    assert [(spec.name, spec.shape) for spec in artifact.artifact.manifest.inputs] == [
        ("input_ids", [1, 128]),
        ("attention_mask", [1, 128]),
    ]
    ids = torch.randint(3, 100, (1, 128))
    model = transformers.LlamaForCausalLM.from_pretrained(path, use_cache=False)
    assert_right_at(artifact, model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def test_the_command_builds_an_image_model_at_the_size_of_its_configuration(
    folder: Callable[[str], Path], tmp_path: Path, warm_trtcross: Trtcross
) -> None:
    out = tmp_path / "vit.pt2"
    result = warm_trtcross("build", folder("vit"), "--task", "image-classification", "-o", out, "--precision", "fp16")
    assert result.returncode == 0, result.stderr
    with open_artifact(out) as artifact:
        assert [(spec.name, spec.shape) for spec in artifact.manifest.inputs] == [("pixel_values", [1, 3, 32, 32])]
        assert len(artifact.manifest.engines) == 1 and not artifact.manifest.fallback


def test_a_part_without_weights_is_refused_and_a_pooler_left_out(folder: Callable[[str], Path]) -> None:
    path = folder("bert")
    with pytest.raises(UsageError, match=r"no weights for bert\.pooler.*, classifier\.bias and 1 more") as caught:
        load_source(str(path), BuildOptions(task="text-classification"))
    assert "use --task fill-mask" in str(caught.value.remedy)
    model, inputs = load_model(open_folder(path, "feature-extraction"), "feature-extraction")
    assert list(model(**inputs)) == ["last_hidden_state"]


def test_a_task_that_the_model_does_not_have_is_refused(folder: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError, match="no model of type 'vit' for the task fill-mask") as caught:
        load_source(str(folder("vit")), BuildOptions(task="fill-mask"))
    assert "--task image-classification" in str(caught.value.remedy)


def test_a_type_that_transformers_does_not_know_is_refused(folder: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such_type"}))
    (tmp_path / "model.safetensors").write_bytes((folder("vit") / "model.safetensors").read_bytes())
    with pytest.raises(UsageError, match="does not know this model") as caught:
        load_source(str(tmp_path), BuildOptions(task="fill-mask"))
    assert str(caught.value.where) == str(tmp_path)


def test_damaged_weights_are_an_error(folder: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder("vit") / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((folder("vit") / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(BuildFailedError, match="transformers could not load the model"):
        load_source(str(tmp_path), BuildOptions(task="image-classification"))


def test_an_example_is_like_what_a_tokenizer_gives(folder: Callable[[str], Path]) -> None:
    _, inputs = load_model(open_folder(folder("bert"), "fill-mask"), "fill-mask")
    ids, mask = inputs["input_ids"][0], inputs["attention_mask"][0].bool()
    assert mask.sum() == 96 and ids[~mask].eq(0).all() and ids[mask][-1] == 2 and ids[mask][:-1].min() > 2
