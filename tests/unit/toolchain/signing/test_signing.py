"""Signing an artifact, and checking who signed it. ``tests/attacks/test_signatures.py`` has refused signatures."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click.testing
import pytest

pytest.importorskip("model_signing")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.conftest import Trtcross
from tests.unit.handmade import Handmade
from tests.unit.signers import PERSON, Authority, KeyFiles, new_key
from toolchain.artifact import open_artifact
from toolchain.cli.main import cli
from toolchain.container.entry_names import MANIFEST_ENTRY
from toolchain.container.reader import Container
from toolchain.errors import MalformedArtifactError, MissingComponentError, UsageError
from toolchain.signing.artifact import require_signature, sign_artifact, signature_path
from toolchain.signing.policy import CertificateSigner, KeySigner, Policy, read_policy


@pytest.fixture
def key(tmp_path: Path) -> KeyFiles:
    return new_key(tmp_path, "key")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return Handmade().write(tmp_path / "model.pt2")


def sign(artifact: Path, key: Path, *certificates: Path) -> Path:
    with open_artifact(artifact) as opened:
        return sign_artifact(opened, key, certificates)


def signer(artifact: Path, policy: Policy) -> str:
    with open_artifact(artifact) as opened:
        return str(require_signature(opened, policy))


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_by_key(tmp_path: Path, artifact: Path, curve: ec.EllipticCurve) -> None:
    key = new_key(tmp_path, "build", curve=curve)
    assert sign(artifact, key.private) == signature_path(artifact)
    assert signer(artifact, Policy((KeySigner(key.public),))) == "the key build.pub"


@pytest.mark.parametrize("identity", [PERSON, "CN=Releases"])
def test_by_certificate(tmp_path: Path, artifact: Path, key: KeyFiles, identity: str) -> None:
    authority = Authority(tmp_path)
    sign(artifact, key.private, authority.issue(key))
    assert signer(artifact, Policy((CertificateSigner(identity, authority.file),))) == f"{identity} (of ca.crt)"


def test_by_certificate_of_an_intermediate_authority(tmp_path: Path, artifact: Path, key: KeyFiles) -> None:
    root = Authority(tmp_path)
    between = Authority(tmp_path, "between", issuer=root)
    sign(artifact, key.private, between.issue(key), between.file)
    assert signer(artifact, Policy((CertificateSigner(PERSON, root.file),)))


def test_any_signer_of_the_policy_will_do(tmp_path: Path, artifact: Path, key: KeyFiles) -> None:
    sign(artifact, key.private)
    other = KeySigner(new_key(tmp_path, "other").public)
    certificate = CertificateSigner(PERSON, Authority(tmp_path).file)
    assert signer(artifact, Policy((other, certificate, KeySigner(key.public)))) == "the key key.pub"


def test_a_renamed_artifact_keeps_its_signature(tmp_path: Path, artifact: Path, key: KeyFiles) -> None:
    sign(artifact, key.private).rename(tmp_path / "other.pt2.sig")
    assert signer(artifact.rename(tmp_path / "other.pt2"), Policy((KeySigner(key.public),)))


def test_the_library_itself_verifies_the_manifest(tmp_path: Path, artifact: Path, key: KeyFiles) -> None:
    """Verifies as docs/trust/signing.md describes: with the manifest from the artifact, and without trtcross."""
    signature = sign(artifact, key.private)
    container = Container(artifact)
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(container.read(MANIFEST_ENTRY))
    container.close()
    arguments = ["verify", "key", str(manifest), "--signature", str(signature), "--public_key", str(key.public)]
    done = subprocess.run(
        [sys.executable, "-m", "model_signing", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_the_signature_covers(artifact: Path, key: KeyFiles) -> None:
    """The signature covers the manifest, whose digests cover the rest: a changed engine passes only the signature."""
    sign(artifact, key.private)
    data = artifact.read_bytes()
    at = data.index(b"dnRydA") + 80  # within the engine's base64
    artifact.write_bytes(data[:at] + (b"A" if data[at : at + 1] != b"A" else b"B") + data[at + 1 :])
    assert signer(artifact, Policy((KeySigner(key.public),)))
    arguments = ["verify", "--level", "integrity", "--signer", str(key.public), str(artifact)]
    assert click.testing.CliRunner().invoke(cli, arguments).exit_code == MalformedArtifactError.exit_code


def test_a_damaged_artifact_is_not_signed(artifact: Path, key: KeyFiles) -> None:
    artifact.write_bytes(artifact.read_bytes().replace(b"little", b"kittle"))
    with pytest.raises(MalformedArtifactError):
        sign(artifact, key.private)
    assert not signature_path(artifact).exists()


# --- the key -----------------------------------------------------------------------------------------------------


def _secrets(key: KeyFiles, password: bytes | None = None) -> list[bytes]:
    """Returns the private key in every form in which it might leak: the lines of its PEM, raw, in hex, in base64."""
    loaded = serialization.load_pem_private_key(key.private.read_bytes(), password)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    number = loaded.private_numbers().private_value
    raw = number.to_bytes(32, "big")
    lines = [line for line in key.private.read_bytes().splitlines() if b"---" not in line]
    return [*lines, raw, raw.hex().encode(), base64.b64encode(raw)[:40], str(number).encode()]


def _has_any(data: bytes, secrets: list[bytes]) -> bool:
    return any(secret in data for secret in secrets)


def test_the_key_never_leaves_its_file(tmp_path: Path, trtcross: Trtcross, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, keys = tmp_path / "work", tmp_path / "keys"
    folder.mkdir()
    keys.mkdir()
    key = new_key(keys, "key")
    for name in ("TMPDIR", "TEMP", "TMP", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("MODEL_SIGNING_LOG_LEVEL", "DEBUG")
    artifact = Handmade().write(folder / "model.pt2")
    certificate = Authority(folder).issue(key)
    for more in ((), ("--certificate", certificate), ("--certificate", key.private)):
        done = trtcross("sign", artifact, "--key", key.private, "-vv", "--json", *more)
        assert done.returncode == (2 if key.private in more else 0), done.stderr
        assert not _has_any((done.stdout + done.stderr).encode(), _secrets(key))
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        assert not _has_any(path.read_bytes(), _secrets(key)), path
    assert [path.name for path in keys.iterdir() if path.suffix not in (".pub", ".pem")] == []


@pytest.mark.parametrize("kind", ["missing", "folder", "public", "rubbish", "encrypted", "curve", "rsa"])
def test_keys_that_cannot_be_used(tmp_path: Path, artifact: Path, key: KeyFiles, kind: str) -> None:
    before = sign(artifact, key.private).read_bytes()
    bad, why = {
        "missing": (tmp_path / "none", "No such file"),
        "folder": (tmp_path, "."),  # the system's own words
        "public": (key.public, "not a private key in PEM"),
        "rubbish": (artifact, "not a private key in PEM"),
        "encrypted": (new_key(tmp_path, "encrypted", password=b"secret").private, "it is encrypted"),
        "curve": (new_key(tmp_path, "curve", curve=ec.SECP256K1()).private, "curve 'secp256k1'"),
        "rsa": (_rsa(tmp_path).private, "not of an elliptic curve"),
    }[kind]
    with pytest.raises(UsageError, match=f"the key cannot be used: .*{why}"):
        sign(artifact, bad)
    assert signature_path(artifact).read_bytes() == before
    assert list(tmp_path.glob(".*")) == []


def _rsa(folder: Path) -> KeyFiles:
    key, pem = rsa.generate_private_key(65537, 2048), serialization.Encoding.PEM
    files = KeyFiles(folder / "rsa.pem", folder / "rsa.pub")
    nothing = serialization.NoEncryption()
    files.private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, nothing))
    files.public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return files


def _broken(*_arguments: object, **_options: Any) -> None:
    raise TypeError("a bug of ours")


def test_a_bug_of_ours_is_not_blamed_on_a_certificate_or_a_signature(
    tmp_path: Path, artifact: Path, key: KeyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toolchain.signing import openssf

    sign(artifact, key.private)
    with monkeypatch.context() as patch:
        patch.setattr(openssf, "datetime", SimpleNamespace(now=_broken))
        with pytest.raises(TypeError, match="a bug of ours"):
            sign(artifact, key.private, Authority(tmp_path).issue(key))
    monkeypatch.setattr(openssf, "Digest", _broken)
    with pytest.raises(TypeError, match="a bug of ours"):
        signer(artifact, Policy((KeySigner(key.public),)))
    arguments = ["verify", "--level", "integrity", "--signer", str(key.public), str(artifact)]
    assert click.testing.CliRunner().invoke(cli, arguments).exit_code == 1


def test_a_certificate_of_another_key_or_another_time(tmp_path: Path, artifact: Path, key: KeyFiles) -> None:
    authority = Authority(tmp_path)
    with pytest.raises(UsageError, match="cannot be used with this key"):
        sign(artifact, key.private, authority.issue(new_key(tmp_path, "other")))
    with pytest.raises(UsageError, match="not now"):
        sign(artifact, key.private, authority.issue(key, days=(-3, -1)))
    assert not signature_path(artifact).exists()


# --- the policy --------------------------------------------------------------------------------------------------


def test_a_policy_file(tmp_path: Path, artifact: Path, key: KeyFiles) -> None:
    authority = Authority(tmp_path)
    policy = tmp_path / "policy.toml"
    policy.write_text(
        f'version = 1\n[[signer]]\nkey = "key.pub"\n[[signer]]\nidentity = "{PERSON}"\nca = "ca.crt"\n', "utf-8"
    )
    read = read_policy(policy)
    assert read.signers == (KeySigner(key.public), CertificateSigner(PERSON, authority.file))
    assert read_policy(read) is read
    for certificates in ((), (authority.issue(key),)):
        sign(artifact, key.private, *certificates)
        assert signer(artifact, read)


@pytest.mark.parametrize(
    "text",
    [
        *("", "version = 1", "version = 2\n[[signer]]\nkey = 'k'", "version = 1\nsigner = []", "= ", "\ud800"),
        *("version = 1\n[[signer]]\nidentity = 'x'", "version = 1\n[[signer]]\nkey = 'k'\nca = 'c'"),
        *("version = 1\n[[signer]]\nkey = ''", "version = 1\nmore = 1\n[[signer]]\nkey = 'k'", "#" * 2**21),
    ],
    ids=range(11),
)
def test_policies_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "policy.toml").write_text(text, "utf-8", "surrogatepass")
    with pytest.raises(UsageError, match="the policy cannot be read"):
        read_policy(tmp_path / "policy.toml")


def test_a_policy_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the policy cannot be read"):
        read_policy(tmp_path / "none.toml")


def test_without_a_reader_of_toml_the_module_to_install_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra ``sign`` does not install it."""
    (tmp_path / "policy.toml").write_text("version = 1\n[[signer]]\nkey = 'key.pub'\n")
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    monkeypatch.setitem(sys.modules, "tomli", None)
    with pytest.raises(MissingComponentError) as caught:
        read_policy(tmp_path / "policy.toml")
    assert caught.value.remedy == "python -m pip install tomli"


def test_keys_of_a_policy_that_cannot_be_used(tmp_path: Path, artifact: Path, key: KeyFiles) -> None:
    sign(artifact, key.private)
    for who, why in (
        (KeySigner(key.private), "not a public key in PEM"),
        (KeySigner(tmp_path / "none"), "No such file"),
        (KeySigner(_rsa(tmp_path).public), "not of an elliptic curve"),
        (KeySigner(new_key(tmp_path, "curve", curve=ec.SECP256K1()).public), "curve 'secp256k1'"),
        (CertificateSigner(PERSON, key.public), "certificates cannot be read"),
        (CertificateSigner(PERSON, tmp_path / "none"), "No such file"),
    ):
        with pytest.raises(UsageError, match=why):
            signer(artifact, Policy((who,)))


# --- the command line --------------------------------------------------------------------------------------------


def test_the_command_line(tmp_path: Path, artifact: Path, key: KeyFiles) -> None:
    run = click.testing.CliRunner().invoke
    done = run(cli, ["sign", str(artifact), "--key", str(key.private), "--json"])
    assert (done.exit_code, json.loads(done.stdout)["signature"]) == (0, f"{artifact}.sig")
    (tmp_path / "policy.toml").write_text("version = 1\n[[signer]]\nkey = 'key.pub'\n")
    for options in (["--signer", str(key.public)], ["--policy", str(tmp_path / "policy.toml")]):
        done = run(cli, ["verify", "--level", "structure", *options, "--json", str(artifact)])
        document = json.loads(done.stdout)
        assert (done.exit_code, document["signer"]) == (0, "the key key.pub")
        assert [level["level"] for level in document["levels"]] == ["signature", "integrity", "structure"]
    done = run(cli, ["check", "--policy", str(tmp_path / "policy.toml"), "--json", str(artifact)])
    assert (done.exit_code in (0, 3), json.loads(done.stdout)["signer"]) == (True, "the key key.pub")


@pytest.mark.parametrize("options", [["--policy", "a", "--signer", "b"], ["--signer-ca", "a"], ["--policy", "none"]])
def test_options_that_contradict(artifact: Path, options: list[str]) -> None:
    done = click.testing.CliRunner().invoke(cli, ["check", str(artifact), *options, "--json"])
    assert (done.exit_code, json.loads(done.stdout)["error"]["kind"]) == (2, "UsageError")


SIGNERS = {
    "me@example.com": ([], "an identity needs the authority", "add --signer-ca"),
    "nobody.pub": ([], "there is no such key", "a public key in PEM"),
    "private": ([], "this is a private key", "openssl pkey -in"),
    "artifact": ([], "this is not a public key in PEM", "a public key in PEM"),
    "with a policy": (["--policy", "a"], "both say who may have signed", "give one of them"),
}


@pytest.mark.parametrize("name", SIGNERS)
def test_a_wrong_signer_is_reported_before_a_missing_signature(name: str, artifact: Path, key: KeyFiles) -> None:
    more, problem, remedy = SIGNERS[name]
    signer = {"private": str(key.private), "artifact": str(artifact)}.get(name, name)
    done = click.testing.CliRunner().invoke(cli, ["check", str(artifact), "--signer", signer, *more, "--json"])
    error = json.loads(done.stdout)["error"]
    assert (done.exit_code, error["kind"]) == (2, "UsageError")
    assert problem in error["problem"] and remedy in error["remedy"]


def test_an_authority_without_an_identity(artifact: Path) -> None:
    done = click.testing.CliRunner().invoke(cli, ["check", str(artifact), "--signer-ca", "ca.pem"])
    assert done.exit_code == 2 and "add --signer IDENTITY" in done.output


def test_without_the_library(artifact: Path, key: KeyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    monkeypatch.delitem(sys.modules, "toolchain.signing.openssf", raising=False)
    monkeypatch.delattr("toolchain.signing.openssf", raising=False)
    with pytest.raises(MissingComponentError, match=re.escape('[sign]"')):
        sign(artifact, key.private)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_load_takes_what_the_policy_trusts(artifact: Path, key: KeyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    from windows_side.loader import loading

    sign(artifact, key.private)
    monkeypatch.setattr(
        "windows_side.preflight.admission.require", lambda *_, **__: (_ for _ in ()).throw(ZeroDivisionError)
    )
    with pytest.raises(ZeroDivisionError):  # the next thing that it asks
        loading.load(artifact, policy=Policy((KeySigner(key.public),)))
