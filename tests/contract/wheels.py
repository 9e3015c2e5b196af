"""Downloads wheels of Torch-TensorRT and TensorRT once by pip, and checks them by the lock file; installs none."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock

LOCK_FILE = Path(__file__).with_name("wheels.lock")

# One Python for all: the sources do not differ between Pythons, and each hash is of one file.
PYTHON = "3.11"
_PLATFORMS = {"linux": ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64"), "windows": ("win_amd64",)}
_LINE = re.compile(r"(?P<name>[\w-]+)==(?P<version>[\w.]+) --hash=sha256:(?P<sha256>[0-9a-f]{64})")


class IndexUnreachableError(Exception):
    """The package index does not answer, so nothing is known about the wheels."""


@dataclass(frozen=True)
class Wheel:
    name: str
    version: str
    sha256: str
    system: str

    def __str__(self) -> str:
        return f"{self.name}-{self.version}-{self.system}"

    @property
    def release(self) -> str:
        """The major and minor version, such as ``2.14``."""
        return ".".join(self.version.split(".")[:2])


def locked_wheels() -> list[Wheel]:
    """Returns the lock file's wheels; its headings ``[linux]`` and ``[windows]`` name the system of those below."""
    wheels, system = [], ""
    for line in LOCK_FILE.read_text("utf-8").splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            system = header[1]
        elif line and not line.startswith("#"):
            match = _LINE.fullmatch(line)
            assert match and system in _PLATFORMS, f"{LOCK_FILE.name}: {line!r} is not name==version --hash=sha256:..."
            wheels.append(Wheel(**match.groupdict(), system=system))
    return wheels


def cache_folder() -> Path:
    """Returns ``$TRTCROSS_WHEELS``, or a folder in the user's cache."""
    return Path(os.environ.get("TRTCROSS_WHEELS") or platformdirs.user_cache_path("trtcross") / "wheels")


def fetch(wheel: Wheel, cache: Path | None = None) -> Path:
    """Returns the file of a wheel, from the cache or from the package index.

    Raises:
        IndexUnreachableError: the wheel is not in the cache, and the index does not answer.
        RuntimeError: pip found no such wheel, or one with a different hash.
    """
    cache = cache or cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    file = cache / f"{wheel.sha256}.whl"
    with FileLock(cache / f"{wheel.sha256}.lock"):  # pytest-xdist
        if not file.exists() or _sha256(file) != wheel.sha256:
            _download(wheel, file)
    return file


def _download(wheel: Wheel, file: Path) -> None:
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        requirement = Path(folder, "requirement.txt")
        requirement.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n", "utf-8")
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-deps"]
        command += ["--retries=1", "--timeout=30", "--only-binary=:all:", "--implementation=cp", "--dest", folder]
        command += [f"--python-version={PYTHON}", *(f"--platform={tag}" for tag in _PLATFORMS[wheel.system])]
        pip = subprocess.run(
            [*command, "--require-hashes", "--requirement", str(requirement)], capture_output=True, text=True
        )
        if pip.returncode:
            if "Retrying (Retry" in pip.stderr:
                raise IndexUnreachableError(f"the package index does not answer, and {wheel} is not in {file.parent}")
            raise RuntimeError(f"pip cannot download {wheel}:\n{pip.stderr.strip()}")
        next(Path(folder).glob("*.whl")).replace(file)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
