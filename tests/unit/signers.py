"""Makes keys and certificates for tests; needs the extra ``sign``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM
_DAY = timedelta(days=1)
PERSON = "releases@example.com"


@dataclass(frozen=True)
class KeyFiles:
    private: Path
    public: Path


def new_key(
    folder: Path, name: str, *, curve: ec.EllipticCurve | None = None, password: bytes | None = None
) -> KeyFiles:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    files = KeyFiles(folder / f"{name}.pem", folder / f"{name}.pub")
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    files.private.write_bytes(key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, protection))
    public = key.public_key()
    files.public.write_bytes(public.public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return files


class Authority:
    """An authority that issues certificates; their days count from today."""

    def __init__(
        self, folder: Path, name: str = "ca", issuer: Authority | None = None, days: tuple[int, int] = (-9, 9)
    ):
        self.folder = folder
        self.key = new_key(folder, f"{name}-key")
        self.name = _name(name)
        self.file = folder / f"{name}.crt"
        certificate = self._builder(self.key.public, self.name, (issuer or self).name, days).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.file.write_bytes(certificate.sign(_private(issuer or self), hashes.SHA256()).public_bytes(_PEM))

    def issue(
        self, key: KeyFiles, person: str = PERSON, days: tuple[int, int] = (-1, 1), may_sign: bool = True
    ) -> Path:
        usage = [may_sign, False, not may_sign, *[False] * 6]  # or only to encipher keys
        certificate = (
            self._builder(key.public, _name("Releases"), self.name, days)
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(person)]), critical=False)
            .add_extension(x509.KeyUsage(*usage), critical=True)
        )
        path = self.folder / f"{key.private.stem}{days[0]}{days[1]}.crt"
        path.write_bytes(certificate.sign(_private(self), hashes.SHA256()).public_bytes(_PEM))
        return path

    def _builder(
        self, public: Path, subject: x509.Name, issuer: x509.Name, days: tuple[int, int]
    ) -> x509.CertificateBuilder:
        now = datetime.now(timezone.utc)
        key = serialization.load_pem_public_key(public.read_bytes())
        return x509.CertificateBuilder(
            issuer, subject, key, x509.random_serial_number(), now + days[0] * _DAY, now + days[1] * _DAY
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _private(authority: Authority) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(authority.key.private.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
