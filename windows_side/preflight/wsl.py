"""The requirement about WSL, which is Linux on a Windows machine and cannot run an artifact for Windows."""

from __future__ import annotations

import os
import platform

from toolchain.host.requirements import Requirement, State
from toolchain.manifest.models import Manifest
from toolchain.targets import Platform

NAME = "wsl"


def wsl_version() -> int | None:
    """Returns 1 or 2 under the Windows Subsystem for Linux, None elsewhere."""
    release = platform.release()
    # A kernel for WSL 2 that a user built may have any name.
    if "microsoft" not in release.lower() and "WSL_DISTRO_NAME" not in os.environ:
        return None
    return 1 if release.endswith("-Microsoft") else 2


def wsl_requirement(manifest: Manifest) -> Requirement:
    """Returns whether this machine's WSL, or its absence, lets the artifact run."""
    version = wsl_version()
    windows = manifest.target.platform is Platform.WINDOWS_X86_64
    needed = "Windows itself, not WSL" if windows else "Linux, or WSL 2"
    if version is None:
        return Requirement(NAME, State.MET, needed, "not WSL")
    found = f"WSL {version}: this Python is Linux's"
    if windows:
        remedy = (
            "run trtcross in PowerShell with a Python of Windows; or convert the artifact to linux-x86_64 for WSL 2"
        )
        return Requirement(NAME, State.NOT_MET, needed, found, remedy)
    if version == 1:
        remedy = "in PowerShell: wsl --set-version DISTRIBUTION 2; WSL 1 has no GPU"
        return Requirement(NAME, State.NOT_MET, needed, found, remedy)
    return Requirement(NAME, State.MET, needed, f"{found}; the NVIDIA driver is the one that is installed in Windows")
