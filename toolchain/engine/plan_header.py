"""The header of a serialized engine (a "plan"): which TensorRT made it, and for which GPUs.

NVIDIA does not document the layout. It was read from plans of TensorRT-RTX 1.6 and 1.7: ``vtrt`` at byte 0 (``ftrt``
for TensorRT), the total size at 16, the release at 24, ``vtrt`` again at 28, and a mask of compute capabilities at 32.
Only the magic of TensorRT's own header is known.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from toolchain.errors import MalformedArtifactError
from toolchain.targets import Backend, ComputeCapability

HEADER_SIZE = 64

_MAGIC = {backend.magic.encode(): backend for backend in Backend}

CAPABILITY_BITS = {
    0x01: ComputeCapability(7, 5),
    0x02: ComputeCapability(8, 0),
    0x04: ComputeCapability(8, 6),
    0x08: ComputeCapability(8, 9),
    0x10: ComputeCapability(12, 0),
    0x20: ComputeCapability(12, 1),
}


@dataclass(frozen=True)
class PlanHeader:
    """What a plan's header states. A field is None if the header does not have it.

    Attributes:
        backend: the TensorRT that made the plan.
        size: the plan's length in bytes.
        release: the exact release, such as ``1.6.1.120``.
        capability_mask: the bit mask of compute capabilities.
    """

    backend: Backend
    size: int | None = None
    release: str | None = None
    capability_mask: int | None = None

    @property
    def capabilities(self) -> tuple[ComputeCapability, ...]:
        """The compute capabilities whose bits are set; bits that are not known are left out."""
        mask = self.capability_mask or 0
        return tuple(capability for bit, capability in CAPABILITY_BITS.items() if mask & bit)


def parse_plan_header(data: bytes, *, where: str = "engine") -> PlanHeader:
    """Reads the first :data:`HEADER_SIZE` bytes of a plan.

    Raises:
        MalformedArtifactError: the bytes are not a plan's, or the header is damaged.
    """
    backend = _MAGIC.get(data[:4])
    if backend is None or len(data) < HEADER_SIZE:
        raise MalformedArtifactError(
            "this is not a TensorRT engine: it does not start with a plan header",
            where=where,
        )
    if backend is Backend.TENSORRT:
        return PlanHeader(backend)
    if data[28:32] != data[:4]:
        raise MalformedArtifactError("the engine's plan header is damaged", where=where)
    (size,) = struct.unpack_from("<Q", data, 16)
    (mask,) = struct.unpack_from("<I", data, 32)
    return PlanHeader(backend, size, ".".join(str(part) for part in data[24:28]), mask)
