"""Describes the machine for a benchmark's readers."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from benchmarks.measure import PRIORITY

PACKAGES = ("torch", "torch-tensorrt-rtx", "tensorrt-rtx", "pybase64")


def describe_machine() -> list[str]:
    """Returns lines about processor, memory, system, priority and the versions of packages."""
    model = _value("/proc/cpuinfo", "model name") or platform.machine()
    memory = int((_value("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 2**20
    return [
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB of memory, Linux {platform.release()}, no GPU",
        "the measured calls ran with real-time priority (`BENCHMARK_PRIORITY=1`)"
        if PRIORITY
        else "the measured calls ran with ordinary priority",
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    ]


def memory_available() -> int:
    """Returns the bytes of memory that a new process can use."""
    return int((_value("/proc/meminfo", "MemAvailable") or "0 kB").split()[0]) * 1024


def _value(path: str, key: str) -> str | None:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
