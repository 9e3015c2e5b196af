"""Makes the exact lines that set up a machine for an artifact."""

from __future__ import annotations

from packaging.version import Version

from toolchain.manifest.models import Producer, TargetSpec
from toolchain.targets import Backend, Platform

TORCH_CUDA_INDEX = "https://download.pytorch.org/whl/"


def install_lines(target: TargetSpec, producer: Producer, *, without_torch: bool = False) -> list[str]:
    """Makes the lines, for PowerShell on Windows and for a POSIX shell on Linux.

    The default index has only CPU builds of torch for Windows, so a CUDA build is named with its own index.

    Args:
        target: what the artifact is built for.
        producer: the releases that it was built with.
        without_torch: whether the artifact runs without PyTorch too. The last line then installs what that needs; the
            line before it is a comment, in both shells, that explains this.
    """
    windows = target.platform is Platform.WINDOWS_X86_64
    python = r".venv\Scripts\python" if windows else ".venv/bin/python"
    python_minor = ".".join(producer.python.split(".")[:2])
    create = f"py -{python_minor} -m venv .venv" if windows else f"python{python_minor} -m venv .venv"
    wheel = f"trtcross-{producer.trtcross}-py3-none-any.whl"
    lines = [
        create,
        f"{python} -m pip install {torch_requirement(producer.torch)}",
        f"{python} -m pip install {' '.join(_runtime_packages(target, producer))}",
        f"{python} -m pip install {wheel} nvidia-ml-py",
    ]
    if without_torch and target.backend is Backend.TENSORRT_RTX:
        runtime = f"{producer.tensorrt.name}=={producer.tensorrt.version} cuda-bindings numpy"
        lines += [
            "# or without PyTorch, in the place of the last three lines:",
            f"{python} -m pip install {wheel} {runtime} nvidia-ml-py",
        ]
    return lines


def torch_requirement(version: str) -> str:
    """Returns the arguments by which pip installs a torch version, such as ``2.14.1+cu130``, from CUDA's index."""
    parsed = Version(version)
    if parsed.local and parsed.local.startswith("cu"):
        return f"torch=={parsed.public} --index-url {TORCH_CUDA_INDEX}{parsed.local}"
    return f"torch=={parsed.public}"


def _runtime_packages(target: TargetSpec, producer: Producer) -> list[str]:
    torch_tensorrt, tensorrt = producer.torch_tensorrt, producer.tensorrt
    packages = [f"{torch_tensorrt.name}=={torch_tensorrt.version}", f"{tensorrt.name}=={tensorrt.version}"]
    if target.backend is Backend.TENSORRT:
        packages.append("--extra-index-url https://pypi.nvidia.com")
    return packages
