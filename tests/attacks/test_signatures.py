"""Signatures that are wrong, stripped, replayed or expired, and files that are none, have errors of their own."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click.testing
import pytest

pytest.importorskip("model_signing")

from tests.unit.handmade import Handmade, plan
from tests.unit.signers import PERSON, Authority, KeyFiles, new_key
from toolchain.artifact import open_artifact
from toolchain.cli.main import cli
from toolchain.errors import UntrustedError
from toolchain.signing import openssf
from toolchain.signing.artifact import require_signature, sign_artifact, signature_path
from toolchain.signing.policy import CertificateSigner, KeySigner, Policy


@dataclass
class Scene:
    """An artifact, signed by a key and, where a test needs it, by a certificate for the key.

    Attributes:
        policy: trusts that key and the certificate's owner.
    """

    folder: Path
    artifact: Path
    key: KeyFiles
    authority: Authority

    @property
    def signature(self) -> Path:
        return signature_path(self.artifact)

    @property
    def policy(self) -> Policy:
        return Policy((KeySigner(self.key.public), CertificateSigner(PERSON, self.authority.file)))

    def sign(self, key: KeyFiles | None = None, *certificates: Path, artifact: Path | None = None) -> None:
        with open_artifact(artifact or self.artifact) as opened:
            sign_artifact(opened, (key or self.key).private, certificates)

    def edit(self, change: Callable[[dict[str, Any]], Any]) -> None:
        document = json.loads(self.signature.read_text())
        change(document)
        self.signature.write_text(json.dumps(document))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path, Handmade().write(tmp_path / "a.pt2"), new_key(tmp_path, "key"), Authority(tmp_path))
    made.sign()
    return made


def _sign_expired(scene: Scene, certificate: Path, *others: Path) -> None:
    """Signs with an expired certificate, as a signer whose clock is wrong, or who signed while it was valid."""
    scene.sign(scene.key, scene.authority.issue(scene.key))
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    chain = [x509.load_pem_x509_certificate(path.read_bytes()) for path in (certificate, *others)]
    encoded = [{"rawBytes": base64.b64encode(item.public_bytes(Encoding.DER)).decode()} for item in chain]
    scene.edit(lambda d: d["verificationMaterial"]["x509CertificateChain"].update(certificates=encoded))


# --- attacks, by name: what is done to the signature, and the words of the refusal ---------------------------------


def stripped(scene: Scene) -> str:
    scene.signature.unlink()
    return "is not signed: there is no signature beside it"


def by_another_key(scene: Scene) -> str:
    scene.sign(new_key(scene.folder, "mallory"))
    return r"nobody whom the policy trusts has signed it: that is the key key.pub, .*; the signature says a key of"


def by_another_key_that_claims_to_be_ours(scene: Scene) -> str:
    hint = json.loads(scene.signature.read_text())["verificationMaterial"]["publicKey"]["hint"]
    scene.sign(new_key(scene.folder, "mallory"))
    scene.edit(lambda document: document["verificationMaterial"]["publicKey"].update(hint=hint))
    return "is not valid: it was not made with the key that it names, or it was changed"


def changed(scene: Scene) -> str:
    def change(document: dict[str, Any]) -> None:
        envelope = document["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"]).replace(b"manifest.json", b"manifest.jsoN")
        envelope["payload"] = base64.b64encode(payload).decode()

    scene.edit(change)
    return "is not valid: it was not made with the key that it names, or it was changed"


def emptied(scene: Scene) -> str:
    scene.edit(lambda document: document["dsseEnvelope"].update(signatures=[]))
    return "is not valid"


def replayed(scene: Scene) -> str:
    other = Handmade(engines=[plan(b"older")]).write(scene.folder / "b.pt2")
    scene.sign(artifact=other)
    shutil.copy(signature_path(other), scene.signature)
    return "is of another artifact, or this one was changed since it was signed"


def replayed_by_certificate(scene: Scene) -> str:
    other = Handmade(engines=[plan(b"older")]).write(scene.folder / "b.pt2")
    scene.sign(scene.key, scene.authority.issue(scene.key), artifact=other)
    shutil.copy(signature_path(other), scene.signature)
    return "is of another artifact, or this one was changed since it was signed"


def artifact_changed(scene: Scene) -> str:
    Handmade(edit_manifest=lambda manifest: manifest["model"].update(name="other")).write(scene.artifact)
    return "is of another artifact, or this one was changed since it was signed"


def expired(scene: Scene) -> str:
    _sign_expired(scene, scene.authority.issue(scene.key, days=(-3, -1)))
    return "certificate has expired"


def not_valid_yet(scene: Scene) -> str:
    _sign_expired(scene, scene.authority.issue(scene.key, days=(2, 3)))
    return "certificate is not valid yet"


def issued_by_an_expired_authority(scene: Scene) -> str:
    between = Authority(scene.folder, "between", issuer=scene.authority, days=(-5, -1))
    _sign_expired(scene, between.issue(scene.key, days=(-3, 1)), between.file)
    return "certificate has expired, or one that issued it"


def of_another_person(scene: Scene) -> str:
    mallory = new_key(scene.folder, "mallory")
    scene.sign(mallory, scene.authority.issue(mallory, "mallory@example.com"))
    return "nobody .*; the signature says mallory@example.com or CN=Releases, certified by CN=ca"


def of_another_authority(scene: Scene) -> str:
    mallory = new_key(scene.folder, "mallory")
    scene.sign(mallory, Authority(scene.folder, "fake").issue(mallory))
    return "nobody .*; the signature says releases@example.com or CN=Releases, certified by CN=fake"


def of_a_person_who_plays_authority(scene: Scene) -> str:
    mallory = Authority(scene.folder, "mallory")
    mallory.file = scene.authority.issue(mallory.key, "mallory@example.com")
    mallory.name = scene_name()
    key = new_key(scene.folder, "key2")
    scene.sign(key, mallory.issue(key), mallory.file)
    return "nobody .*; the signature says releases@example.com or CN=Releases, certified by CN=Releases"


def scene_name() -> Any:
    from cryptography import x509

    return x509.Name.from_rfc4514_string("CN=Releases")


def of_a_certificate_that_may_not_sign(scene: Scene) -> str:
    scene.sign(scene.key, scene.authority.issue(scene.key, may_sign=False))
    return "is not valid"


def certificate_of_another_key(scene: Scene) -> str:
    """Puts the trusted signer's certificate, which is public, on a signature by another key."""
    trusted = scene.authority.issue(scene.key)
    scene.sign(new_key(scene.folder, "mallory"))
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    der = x509.load_pem_x509_certificate(trusted.read_bytes()).public_bytes(Encoding.DER)
    chain = {"certificates": [{"rawBytes": base64.b64encode(der).decode()}]}
    scene.edit(lambda document: document.update(verificationMaterial={"x509CertificateChain": chain}))
    return "is not valid"


REFUSED = [
    *(stripped, by_another_key, by_another_key_that_claims_to_be_ours, changed, emptied),
    *(replayed, replayed_by_certificate, artifact_changed, expired, not_valid_yet, issued_by_an_expired_authority),
    *(of_another_person, of_another_authority, of_a_person_who_plays_authority),
    *(of_a_certificate_that_may_not_sign, certificate_of_another_key),
]


@pytest.mark.parametrize("attack", REFUSED, ids=lambda attack: attack.__name__)
def test_refused(scene: Scene, attack: Callable[[Scene], str]) -> None:
    words = attack(scene)
    with open_artifact(scene.artifact) as opened, pytest.raises(UntrustedError, match=words):
        require_signature(opened, scene.policy)


def _bundle(material: Any) -> bytes:
    return json.dumps({"verificationMaterial": material}).encode()


NO_SIGNATURES = {
    "empty": b"",
    "not_utf8": b"\xff",
    "a_list": b"[]",
    "no_material": b"{}",
    "deep": b"[" * 100_000,
    "key_twice": b'{"verificationMaterial": {}, "verificationMaterial": {}}',
    "huge": b'"' + b"x" * 2**21 + b'"',
    "many_values": b"[" + b"{}," * 100_000 + b"{}]",
    "material_is_text": _bundle("publicKey"),
    "hint_is_empty": _bundle({"publicKey": {"hint": ""}}),
    "hint_is_missing": _bundle({"publicKey": {"rawBytes": "AA=="}}),
    "key_and_certificate": _bundle({"publicKey": {"hint": "x"}, "x509CertificateChain": {"certificates": []}}),
    "no_certificate": _bundle({"x509CertificateChain": {"certificates": []}}),
    "certificate_not_base64": _bundle({"x509CertificateChain": {"certificates": [{"rawBytes": "%"}]}}),
    "other_spelling": _bundle({"x509_certificate_chain": {"certificates": []}}),
}


@pytest.mark.parametrize("name", NO_SIGNATURES)
def test_no_signature(scene: Scene, name: str) -> None:
    scene.signature.write_bytes(NO_SIGNATURES[name])
    with open_artifact(scene.artifact) as opened, pytest.raises(UntrustedError, match="the signature cannot be read"):
        require_signature(opened, scene.policy)


def test_a_certificate_that_is_none(scene: Scene) -> None:
    scene.signature.write_bytes(_bundle({"x509CertificateChain": {"certificates": [{"rawBytes": "AAAA"}]}}))
    with (
        open_artifact(scene.artifact) as opened,
        pytest.raises(UntrustedError, match="somebody whose certificate cannot be read"),
    ):
        require_signature(opened, scene.policy)


def _certificates_that_cannot_be_read(scene: Scene) -> dict[str, bytes]:
    """Returns a certificate of an unknown version and one with a repeated extension; cryptography raises for each."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    der = x509.load_pem_x509_certificate(scene.authority.issue(scene.key).read_bytes()).public_bytes(Encoding.DER)
    version, usage, names = b"\xa0\x03\x02\x01\x02", b"\x06\x03\x55\x1d\x0f", b"\x06\x03\x55\x1d\x11"
    assert version in der and usage in der and names in der
    return {"version": der.replace(version, version[:-1] + b"\x09", 1), "twice": der.replace(names, usage, 1)}


@pytest.mark.parametrize("kind", ["version", "twice"])
def test_a_certificate_that_cannot_be_read(scene: Scene, kind: str) -> None:
    data = base64.b64encode(_certificates_that_cannot_be_read(scene)[kind]).decode()
    scene.signature.write_bytes(_bundle({"x509CertificateChain": {"certificates": [{"rawBytes": data}]}}))
    with (
        open_artifact(scene.artifact) as opened,
        pytest.raises(UntrustedError, match="somebody whose certificate cannot be read"),
    ):
        require_signature(opened, scene.policy)


def test_a_trusted_certificate_of_an_rsa_key(scene: Scene) -> None:
    """The library verifies with any kind of key that a certificate has, and fails on RSA keys."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    files, key = KeyFiles(scene.folder / "rsa.pem", scene.folder / "rsa.pub"), rsa.generate_private_key(65537, 2048)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    files.public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
    _sign_expired(scene, scene.authority.issue(files))
    with open_artifact(scene.artifact) as opened, pytest.raises(UntrustedError, match="is not valid"):
        require_signature(opened, scene.policy)


def test_the_library_alone_takes_an_expired_certificate(scene: Scene) -> None:
    """So we check the dates ourselves."""
    from model_signing import verifying

    expired(scene)
    prepared = verifying.Config().use_certificate_verifier(certificate_chain=[scene.authority.file])
    with open_artifact(scene.artifact) as opened:
        assert openssf.is_of(prepared, opened.manifest_sha256, scene.signature)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_signature_that_is_a_pipe(scene: Scene) -> None:
    scene.signature.unlink()
    os.mkfifo(scene.signature)
    with open_artifact(scene.artifact) as opened, pytest.raises(UntrustedError, match="not a regular file"):
        require_signature(opened, scene.policy)


def test_each_byte_of_the_payload_and_signature_counts(scene: Scene) -> None:
    """One bit of each byte is flipped: the signature is refused, or its content is unchanged."""
    original = json.loads(scene.signature.read_text())
    for name in ("payload", "sig"):
        for position in range(0, len(_part(original, name)), 7):
            document = json.loads(json.dumps(original))
            data = bytearray(_part(document, name))
            data[position] ^= 1
            owner = document["dsseEnvelope"] if name == "payload" else document["dsseEnvelope"]["signatures"][0]
            owner[name] = base64.b64encode(data).decode()
            scene.signature.write_text(json.dumps(document))
            with open_artifact(scene.artifact) as opened, pytest.raises(UntrustedError, match="is not valid"):
                require_signature(opened, scene.policy)


def _part(document: dict[str, Any], name: str) -> bytes:
    envelope = document["dsseEnvelope"]
    return base64.b64decode(envelope["payload"] if name == "payload" else envelope["signatures"][0]["sig"])


def test_a_signature_that_changes_while_it_is_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = openssf.is_of

    def check_and_swap(*arguments: Any) -> bool:
        result = checked(*arguments)
        scene.signature.write_bytes(b"{}")
        return result

    monkeypatch.setattr(openssf, "is_of", check_and_swap)
    with open_artifact(scene.artifact) as opened, pytest.raises(UntrustedError, match="changed while it was read"):
        require_signature(opened, scene.policy)


@pytest.mark.parametrize("verb", [["verify", "--level", "integrity"], ["check"]])
def test_exit_code(scene: Scene, verb: list[str]) -> None:
    scene.signature.unlink()
    done = click.testing.CliRunner().invoke(
        cli, [*verb, str(scene.artifact), "--signer", str(scene.key.public), "--json"]
    )
    document = json.loads(done.stdout)
    assert (done.exit_code, document["error"]["kind"]) == (5, "UntrustedError")
    assert re.search("is not signed", document["error"]["problem"])


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_load_refuses_before_torch_sees_the_file(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from windows_side.loader import loading

    def reached(*arguments: object, **options: Any) -> None:
        raise AssertionError("torch was reached")

    for owner, name in ((torch.export, "load"), (torch, "load"), (loading, "load_runtime"), (loading, "load_program")):
        monkeypatch.setattr(owner, name, reached)
    scene.signature.unlink()
    with pytest.raises(UntrustedError, match="is not signed"):
        loading.load(scene.artifact, policy=scene.policy)
