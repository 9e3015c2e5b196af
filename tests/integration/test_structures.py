"""Classes in a call: the artifact needs none of them, and its users still have attributes, keys and indices."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from linux_side.driver.building import build
from linux_side.frontend.program_file import read_program
from tests.conftest import ROOT
from tests.integration.harness import Built, assert_same_wiring, build_here
from toolchain.errors import UsageError
from windows_side.calling.records import FieldTuple, Record

pytestmark = pytest.mark.rtx

X = torch.arange(8.0).reshape(2, 4) / 8


class Extremes(NamedTuple):
    """A named tuple whose fields have names of methods of tuples and dicts, as torch's own do."""

    values: Tensor
    count: Tensor


@dataclass
class Features:
    """A class that is registered without a serialized name, so that torch.export.save alone cannot write it."""

    values: Tensor
    mask: Tensor | None = None
    extremes: Extremes | None = None


torch.export.register_dataclass(Features)


class Cache:
    """A class that is registered only by functions, whose context has no names."""

    def __init__(self, keys: list[Tensor], length: Tensor) -> None:
        self.keys = keys
        self.length = length


pytree.register_pytree_node(
    Cache,
    lambda cache: ([cache.keys, cache.length], None),
    lambda values, _: Cache(*values),
    flatten_with_keys_fn=lambda cache: (
        [(pytree.SequenceKey(0), cache.keys), (pytree.SequenceKey(1), cache.length)],
        None,
    ),
)


class Mode(Enum):
    LOUD = "loud"


class Classes(nn.Module):
    def forward(self, features: Features, pair: Extremes, *, cache: Cache) -> Any:
        total = features.values + pair.values * cache.length
        inner = Extremes(total.amax(1), total.sum(1))
        return {
            "features": Features(total.relu(), extremes=inner),
            "cache": Cache([key + 1 for key in cache.keys], cache.length * 2),
            "sorted": torch.sort(total, 1),
            Mode.LOUD: [total * 10],
        }


def call() -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (Features(X), Extremes(X * 2, X - 1)), {"cache": Cache([X, X * 3], X + 4)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    args, kwargs = call()
    return build_here(Classes(), args, kwargs, folder=tmp_path_factory.mktemp("classes"), golden=2)


def test_every_class_has_its_attributes_and_nested_ones_too(built: Built) -> None:
    args, kwargs = call()
    want = Classes()(*args, **kwargs)
    got = assert_same_wiring(built, *args, **kwargs)
    features = got["features"]
    assert type(features) is Record
    assert torch.equal(features.values, want["features"].values)  # the field, not the dict's method
    assert torch.equal(features["values"], features[0])
    assert features.mask is None
    assert list(features) == ["values", "extremes"]
    assert len(features) == 2
    values, count = features.extremes
    assert torch.equal(features.extremes.count, count)
    assert torch.equal(values, want["features"].extremes.values)
    assert torch.equal(got["cache"].keys[1], want["cache"].keys[1])
    assert torch.equal(got["sorted"].indices, want["sorted"].indices)
    assert type(got) is dict
    assert torch.equal(got["loud"][0], want[Mode.LOUD][0])


def test_inputs_may_be_of_the_class_or_look_like_it(built: Built) -> None:
    (features, pair), kwargs = call()
    want = pytree.tree_leaves(built.run(features, pair, **kwargs))

    class Own:
        values = features.values

    mapping = {"keys": kwargs["cache"].keys, "length": kwargs["cache"].length}
    calls: list[tuple[Any, Any, Any]] = [
        ({"values": features.values}, tuple(pair), mapping),
        (OrderedDict(values=features.values, mask=None), list(pair), OrderedDict(reversed(mapping.items()))),
        (Own(), {"count": pair.count, "values": pair.values}, Record(mapping)),
        (Record({"values": features.values}, ["values", "mask"]), pair, kwargs["cache"]),
    ]
    for given in calls:
        got = pytree.tree_leaves(built.run(given[0], given[1], cache=given[2]))
        assert all(map(torch.equal, got, want))


@pytest.mark.parametrize(
    "features",
    [X, {}, {"value": X}, {"values": X, "mask": X}, {"values": X, "more": X}, Features(X, mask=X), None, "values", [X]],
)
def test_an_input_of_another_structure_is_refused(built: Built, features: Any) -> None:
    (_, pair), kwargs = call()
    with pytest.raises(UsageError, match="not in the structure that it was exported with"):
        built.run(features, pair, **kwargs)


def test_the_artifact_names_its_classes_for_people_alone(built: Built) -> None:
    manifest = built.artifact.manifest
    assert manifest.schema_version == 2
    assert [entry.name.rpartition(".")[2] for entry in manifest.classes if entry.spec == "out_spec"] == [
        "Features", "Extremes", "Cache", "sort",
    ]  # fmt: skip
    assert [value.name for value in manifest.inputs] == [
        "features.values", "pair.0", "pair.1", "cache.keys.0", "cache.keys.1", "cache.length",
    ]  # fmt: skip
    graph = json.dumps(built.artifact.graph())
    for text in (manifest.call.in_spec, manifest.call.out_spec, graph):
        assert not any(name in text for name in ("Features", "Extremes", "Cache", "Mode", "return_types"))


def test_results_are_copied_and_sent_to_other_processes(built: Built) -> None:
    args, kwargs = call()
    got = built.run(*args, **kwargs)
    for other in (
        copy.copy(got["features"]),
        copy.deepcopy(got["features"]),
        pickle.loads(pickle.dumps(got))["features"],
    ):
        assert torch.equal(other.values, got["features"].values)
        assert other.mask is None
        assert isinstance(other.extremes, FieldTuple)
        assert torch.equal(other.extremes.count, got["features"].extremes.count)
    doubled = pytree.tree_map(lambda leaf: leaf * 2, got)
    assert torch.equal(doubled["features"].extremes.values, got["features"].extremes.values * 2)


def test_a_record_stays_one_thing_when_it_is_written_to() -> None:
    record = Record({"logits": X, "loss": X.sum()}, ["logits", "loss", "hidden"])
    record.logits = X + 1
    record["hidden"] = X * 2
    assert torch.equal(record[0], X + 1)
    assert torch.equal(record.hidden, record["hidden"])
    assert [*map(torch.Size.numel, (leaf.shape for leaf in record[:2]))] == [8, 1]
    assert {**record}.keys() == dict(record).keys() == {"logits", "loss", "hidden"}
    with pytest.raises(AttributeError):
        _ = record.attentions
    with pytest.raises(KeyError):
        _ = record["attentions"]


class ModelOutputs:
    """A model of tiny models of transformers, with random weights, that return its own classes."""

    @staticmethod
    def bert() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        transformers = pytest.importorskip("transformers")
        config = transformers.BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=16, output_hidden_states=True,
        )  # fmt: skip
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(config).eval()
        ids = torch.arange(12).reshape(2, 6)
        return model, (), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    @staticmethod
    def llama() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        transformers = pytest.importorskip("transformers")
        config = transformers.LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            use_cache=False,
        )
        torch.manual_seed(0)
        return transformers.LlamaForCausalLM(config).eval(), (torch.arange(6)[None],), {}


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_model_output_keeps_its_ways(name: str, tmp_path: Path) -> None:
    model, args, kwargs = getattr(ModelOutputs, name)()
    with torch.no_grad():
        want = model(*args, **kwargs)
    built = build_here(model, args, kwargs, folder=tmp_path)
    got = assert_same_wiring(built, *args, **kwargs)
    assert torch.allclose(got.logits, want.logits, atol=1e-5)
    assert torch.equal(got["logits"], got[0])
    assert list(got.keys()) == list(want.keys())
    assert len(got) == len(want)
    assert got.loss is None
    assert len(got.to_tuple()) == len(want.to_tuple())
    if name == "bert":
        assert len(got.hidden_states) == 3


@pytest.mark.usefixtures("warm_builds")
def test_a_saved_program_needs_its_classes_nowhere(tmp_path: Path) -> None:
    """torch.export.load needs transformers for such a file; neither the build's process nor the artifact has it."""
    model, args, kwargs = ModelOutputs.bert()
    path = tmp_path / "bert.pt2"
    torch.export.save(torch.export.export(model, args, kwargs), path)
    artifact = build(str(path), tmp_path / "artifact.pt2", cache=False)
    assert artifact.manifest.golden is not None
    assert artifact.manifest.classes[0].name == "transformers.modeling_outputs.SequenceClassifierOutput"
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "import torch; from linux_side.frontend.program_file import read_program; from pathlib import Path\n"
        f"program, classes = read_program(Path({str(path)!r}))\n"
        "print(sorted(program.module()(*program.example_inputs[0], **program.example_inputs[1])), classes[0].name)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['hidden_states', 'logits'] transformers")


def test_a_consumer_without_transformers_loads_it_and_has_its_attributes(tmp_path: Path) -> None:
    """The model passes through files and another process. TensorRT takes no part of it, so the CPU runs it."""
    outputs = pytest.importorskip("transformers.modeling_outputs")

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return outputs.MaskedLMOutput(logits=torch.nextafter(x, x), hidden_states=(torch.nextafter(x, x),))

    built = build_here(Model(), (X,), folder=tmp_path, allow_no_engine=True)
    code = (
        "import sys; sys.modules['transformers'] = sys.modules['tests'] = None\n"
        "import torch\n"
        "from toolchain import open_artifact\n"
        "from windows_side.execution.model import LoadedModel\n"
        "from windows_side.loader.loading import load_flat\n"
        "from windows_side.verification.golden import compare_golden\n"
        f"artifact = open_artifact({str(built.artifact.path)!r})\n"
        "cpu = torch.device('cpu')\n"
        "model = LoadedModel(load_flat(artifact, cpu, None), artifact.manifest, cpu)\n"
        "y = model(torch.ones(2, 4))\n"
        "print(y.logits is y['logits'] is y[0], y.loss, len(y.hidden_states), list(y))\n"
        "print([error.within for error in compare_golden(artifact, model)])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True None 1 ['logits', 'hidden_states']", "[True, True]"]


def test_a_stock_reader_without_the_classes_gives_plain_dicts(built: Built, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['transformers'] = sys.modules['tests'] = sys.modules['windows_side'] = None\n"
        "import torch\n"
        "from linux_side.upstream import import_torch_tensorrt\n"
        "from toolchain.targets import AMPERE\n"
        "import_torch_tensorrt(AMPERE)\n"
        f"program = torch.export.load({str(built.artifact.path)!r})\n"
        "print(program.call_spec.out_spec)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("TreeSpec(dict, ['features', 'cache', 'sorted', 'loud']")


@pytest.mark.usefixtures("warm_builds")
def test_a_program_in_memory_may_hold_classes_that_torch_cannot_write(tmp_path: Path) -> None:
    args, kwargs = call()
    program = torch.export.export(Classes(), args, kwargs)
    structure = program.call_spec.out_spec
    with build(program, tmp_path / "artifact.pt2", cache=False) as artifact:
        assert {entry.name.rpartition(".")[2] for entry in artifact.manifest.classes} == {
            "Features", "Extremes", "Cache", "sort",
        }  # fmt: skip
        assert artifact.manifest.classes[-1].fields == ["values", "indices"]
    assert program.call_spec.out_spec == structure  # the caller's program is as it was


def test_a_saved_named_tuple_keeps_its_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # torch logs the example's class by a record with too few arguments, for which pytest raises.
    monkeypatch.setattr(logging.getLogger("torch._export.serde.serialize"), "disabled", True)
    pytree._register_namedtuple(Extremes, serialized_type_name="tests.Extremes")

    class Model(nn.Module):
        def forward(self, pair: Extremes) -> Extremes:
            return Extremes(pair.values.relu(), pair.count + 1)

    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(Model(), (Extremes(X, X),)), path)
    program, classes = read_program(path)
    assert [entry.fields for entry in classes] == [["values", "count"]] * 2
    assert program.module()((X, X))[1].shape == X.shape
