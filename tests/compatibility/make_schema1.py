"""How the artifacts in ``schema1/`` were made, at revision 5d75a28. It is kept to be read, not to be run again.

    git checkout 5d75a28                                # and this file put in its place
    python -m tests.compatibility.make_schema1          # on Linux, no GPU; Torch-TensorRT-RTX 2.14.0

What it imports below has since moved. Artifacts of a later schema get a script and a folder of their own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent / "schema1"
BUILDS = {
    "static": [],
    "dynamic": ["--dynamic", "x.0=1:1:2,3:4:8", "--golden", "2"],
    "mixed": ["--torch-executed-op", "aten.cumsum.default", "--torch-executed-op", "aten.mul.Tensor"],
    "kv_cache": [],
    "fp16": ["--precision", "fp16"],
    "half": [],
}
# Members of a foreign file's derived manifest that come from the reading machine or the reader.
OF_THE_READER = ("schema_version", "created", "install", "producer")

Example = tuple[torch.nn.Module, tuple[torch.Tensor, ...]]


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x))


class Mixed(torch.nn.Module):
    """A sum and a scale that stay in PyTorch, with a weight, between two engines; keywords and nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
        self.scale = torch.nn.Parameter(torch.tensor([0.5]))

    def forward(self, x: torch.Tensor, *, shift: torch.Tensor) -> dict[str, Any]:
        hidden = torch.relu(self.first(x) + shift)
        summed = hidden.cumsum(0) * self.scale
        return {"summed": summed, "results": [torch.sigmoid(self.second(summed))]}


class Cache(torch.nn.Module):
    """Writes one position of its caches with each call, and reads the whole of them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(1, 2, 8, 4))
        self.register_buffer("values", torch.zeros(1, 2, 8, 4), persistent=False)

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, position: torch.Tensor
    ) -> torch.Tensor:
        self.keys.index_copy_(2, position, key)
        self.values.index_copy_(2, position, value)
        return torch.softmax(query @ self.keys.transpose(2, 3), dim=-1) @ self.values


def static() -> Example:
    torch.manual_seed(0)
    return Layer().eval(), (torch.randn(2, 8),)


def dynamic() -> Example:
    torch.manual_seed(1)
    return Layer().eval(), (torch.randn(4, 8),)


def fp16() -> Example:
    torch.manual_seed(2)
    return Layer().eval(), (torch.randn(2, 8),)


def half() -> Example:
    """A model whose inputs and outputs, and so its golden I/O, are fp16 too."""
    torch.manual_seed(5)
    return Layer().eval().half(), (torch.randn(2, 8).half(),)


def mixed() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    torch.manual_seed(3)
    return Mixed().eval(), (torch.randn(3, 4),), {"shift": torch.randn(3, 4)}


def kv_cache() -> Example:
    torch.manual_seed(4)
    step = (torch.randn(1, 2, 1, 4) for _ in range(3))
    return Cache().eval(), (*step, torch.tensor([3]))


def trtcross(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "toolchain", *map(str, arguments), "--json"]
    document: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return document


def main() -> None:
    for name, options in BUILDS.items():
        model, out = f"tests.compatibility.make_schema1:{name}", FOLDER / f"{name}.pt2"
        trtcross("build", model, "-o", out, "--gpu", "sm_80", "--no-cache", *options)
    save_foreign(FOLDER / "foreign.pt2")
    sign()
    for path in sorted(FOLDER.glob("*.pt2")):
        path.with_suffix(".json").write_text(json.dumps(facts(path), indent=1) + "\n")
    shutil.copy("toolchain/schema/manifest-1.json", FOLDER)
    files = sorted(path for path in FOLDER.iterdir() if path.name not in ("README.md", "SHA256SUMS"))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (FOLDER / "SHA256SUMS").write_text("".join(lines))


def facts(path: Path) -> dict[str, Any]:
    """Returns the manifest that ``inspect --json`` prints."""
    document = trtcross("inspect", path, "--digests")
    manifest: dict[str, Any] = document["manifest"]
    return {name: value for name, value in manifest.items() if not (document["foreign"] and name in OF_THE_READER)}


def save_foreign(out: Path) -> None:
    """Saves the mixed model with a dynamic batch by Torch-TensorRT's legacy exporter and torch's own saver."""
    from tests.integration.graphs import Graph
    from tests.integration.harness import imported_builder
    from tests.integration.upstream_comparison import upstream_program

    model, args, kwargs = mixed()
    options = {
        "dynamic": ("x.0=1:3:8", "shift.0=1:3:8"),
        "torch_executed_ops": ["aten.cumsum.default", "aten.mul.Tensor"],
    }
    graph = Graph(lambda: model, args, kwargs, options=options)
    imported_builder()
    with torch.no_grad():
        program, _ = upstream_program(graph)
    torch.export.save(program, out)


def sign() -> None:
    """Signs one artifact by key and one by certificate. The private keys are not kept, so nobody can sign again.

    A certificate is refused before it begins and once it has expired. These are valid from 2020 to the last day that
    X.509 can state.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    pem = serialization.Encoding.PEM
    dates = datetime(2020, 1, 1, tzinfo=timezone.utc), datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    build, authority, person = keys

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(
            name("trtcross schema 1 fixtures"), name(subject), key.public_key(), x509.random_serial_number(), *dates
        )

    ca = builder("trtcross schema 1 fixtures", authority).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    own = (
        builder("Releases", person)
        .add_extension(x509.SubjectAlternativeName([x509.RFC822Name("releases@example.com")]), critical=False)
        .add_extension(x509.KeyUsage(True, *[False] * 8), critical=True)
    )
    (FOLDER / "ca.crt").write_bytes(ca.sign(authority, hashes.SHA256()).public_bytes(pem))
    public = build.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (FOLDER / "build.pub").write_bytes(public)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{index}.key" for index in range(3)]
        for file, key in zip(files, keys, strict=True):
            file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        certificate = Path(folder) / "own.crt"
        certificate.write_bytes(own.sign(authority, hashes.SHA256()).public_bytes(pem))
        trtcross("sign", FOLDER / "static.pt2", "--key", files[0])
        trtcross("sign", FOLDER / "fp16.pt2", "--key", files[2], "--certificate", certificate)


if __name__ == "__main__":
    main()
