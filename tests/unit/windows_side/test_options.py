"""The settings of `load` are defined once, for the library, the verbs and the processes of `bench`."""

from __future__ import annotations

import inspect
from pathlib import Path

import click
import pytest

from tests.unit.imports import imported_by
from toolchain.errors import UsageError
from toolchain.signing.policy import KeySigner, Policy
from windows_side.commands.bench import bench
from windows_side.commands.run import run
from windows_side.commands.verify import verify
from windows_side.options import LoadOptions


def test_load_takes_the_options_with_their_defaults() -> None:
    pytest.importorskip("torch")
    from windows_side import load

    parameters = list(inspect.signature(load).parameters.values())[1:]
    assert {item.name: item.default for item in parameters} == LoadOptions().model_dump()


@pytest.mark.parametrize("verb", [run, verify, bench])
def test_each_verb_has_them_with_the_same_words(verb: click.Command) -> None:
    options = {item.name: item for item in verb.params if isinstance(item, click.Option)}
    assert {"device", "allow_unlisted_gpu", "trust", "policy", "signer", "signer_ca"} <= set(options)
    assert ("cuda_graphs" in options) is (verb is bench)
    for name in {"device", "allow_unlisted_gpu", "trust", "cuda_graphs"} & set(options):
        field = LoadOptions.model_fields[name]
        assert options[name].help == field.description
        assert field.default is None or options[name].default == field.default


def test_they_cross_to_another_process(tmp_path: Path) -> None:
    options = LoadOptions(device="cuda:1", trust="mine", runtime_cache=tmp_path, cuda_graphs=True)
    text = options.model_dump_json(exclude={"policy"})
    assert LoadOptions.model_validate_json(text) == options
    assert options.runtime_cache == str(tmp_path)
    signed = LoadOptions(policy=Policy((KeySigner(tmp_path / "key.pub"),)))
    assert signed.policy and signed.policy.signers


def test_a_device_may_be_torchs_own() -> None:
    torch = pytest.importorskip("torch")
    for device in (1, "cuda:1", torch.device("cuda:1")):
        assert LoadOptions(device=device).device == "cuda:1"


@pytest.mark.parametrize("wrong", [{"device": None}, {"cuda_graphs": "no"}, {"policy": 3}, {"devise": "cuda:0"}])
def test_a_wrong_value_is_a_usage_error(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        LoadOptions(**wrong)


def test_they_import_no_torch() -> None:
    verbs = "import windows_side.commands.run, windows_side.commands.verify, windows_side.commands.bench"
    assert "torch" not in imported_by(f"from windows_side.options import LoadOptions; {verbs}")


def test_what_a_fresh_process_refuses_is_its_own_error(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from windows_side.benchmark.first_call import measure_first_call

    with pytest.raises(UsageError) as caught:
        measure_first_call(tmp_path / "none.pt2", LoadOptions())
    assert "none.pt2" in str(caught.value)
