"""Engine info: the ordered fields from which ``torch.classes.tensorrt.Engine`` is built, by ABI version.

The C++ constructor indexes the list without a check, so every list is checked here first.
Upstream: ``core/runtime/runtime.h`` (``SerializedInfoIndex``) and ``core/runtime/TRTEngine.cpp``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from toolchain.errors import BuildFailedError, IncompatibleError, MalformedArtifactError
from toolchain.targets import ComputeCapability

FIELDS = (
    "abi_version",
    "name",
    "device",
    "engine",
    "input_binding_names",
    "output_binding_names",
    "hardware_compatible",
    "metadata",
    "target_platform",
    "requires_output_allocator",
    "resource_allocation_strategy",
    "requires_native_multidevice",
    "aliased_io",
)
# The same fields, as the placeholder operator names its arguments.
ARGUMENTS = (
    "abi_version",
    "name",
    "serialized_device_info",
    "serialized_engine",
    "serialized_in_binding_names",
    "serialized_out_binding_names",
    "serialized_hardware_compatible",
    "serialized_metadata",
    "serialized_target_platform",
    "serialized_require_output_allocator",
    "serialized_resource_allocation_strategy",
    "serialized_requires_native_multidevice",
    "serialized_aliased_io",
)
ENGINE_FIELD = FIELDS.index("engine")
TARGET_PLATFORM_FIELD = FIELDS.index("target_platform")

# ABI version -> how many of FIELDS it has. A contract test compares this with the sources of each release.
FIELD_COUNT = {6: 9, 7: 10, 8: 11, 9: 12, 10: 13}
CURRENT_ABI = 10

PLACEHOLDER_OPERATOR = "tensorrt::no_op_placeholder_for_execute_engine"

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Forbidden in every text of an artifact: control characters, changes of writing direction, lone surrogates."""

_LIST_SEPARATOR = "%"
_ALIAS_SEPARATOR = "@"
_DEVICE = re.compile(r"(-?[0-9]{1,9})%([0-9]{1,9})%([0-9]{1,9})%([0-9]{1,9})%([^%]*)", re.DOTALL)


@dataclass(frozen=True)
class RuntimeDevice:
    """The device field: the GPU on which the engine is to run."""

    index: int
    capability: ComputeCapability
    kind: int  # nvinfer1::DeviceType, 0 = GPU
    name: str

    def __str__(self) -> str:
        parts = (self.index, self.capability.major, self.capability.minor, self.kind, self.name)
        return _LIST_SEPARATOR.join(str(part) for part in parts)

    @classmethod
    def parse(cls, text: str, *, where: str) -> RuntimeDevice:
        """Reads the device field.

        Raises:
            MalformedArtifactError: the text is not ``id%major%minor%type%name``.
        """
        match = _DEVICE.fullmatch(text)
        if not match:
            raise MalformedArtifactError(f"the device field {text[:80]!r} is not id%major%minor%type%name", where=where)
        index, major, minor, kind = map(int, match.groups()[:4])
        return cls(index, ComputeCapability(major, minor), kind, match[5])


@dataclass(frozen=True)
class AliasedIO:
    """An output that shares the memory of an input, such as a KV cache."""

    output: str
    input: str
    kind: str


@dataclass(frozen=True)
class EngineInfo:
    """The fields from which the runtime makes an engine object, parsed, without the engine's bytes."""

    name: str
    device: RuntimeDevice
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    hardware_compatible: bool
    metadata: str  # base64 of a pickle that stock readers need; we never unpickle it
    target_platform: str
    requires_output_allocator: bool = False
    dynamic_resources: bool = False
    requires_native_multidevice: bool = False
    aliased_io: tuple[AliasedIO, ...] = ()
    abi_version: int = CURRENT_ABI

    def fields(self, engine: str | bytes) -> list[str | bytes]:
        """Returns the list in the order of this ABI version.

        Args:
            engine: the plan as bytes, for the constructor; as base64 or a token, for a placeholder node.

        Raises:
            BuildFailedError: a binding's name holds a separator.
        """
        values: list[str | bytes] = [
            str(self.abi_version),
            self.name,
            str(self.device),
            engine,
            join_binding_names(self.input_names),
            join_binding_names(self.output_names),
            str(int(self.hardware_compatible)),
            self.metadata,
            self.target_platform,
            str(int(self.requires_output_allocator)),
            str(int(self.dynamic_resources)),
            str(int(self.requires_native_multidevice)),
            _LIST_SEPARATOR.join(_ALIAS_SEPARATOR.join((a.output, a.input, a.kind)) for a in self.aliased_io),
        ]
        return values[: FIELD_COUNT[self.abi_version]]

    def check_names(self) -> None:
        """Refuses names that no reader of artifacts accepts; a writer checks them before it writes anything.

        Raises:
            BuildFailedError: a name holds control characters.
        """
        for name in (self.name, *self.input_names, *self.output_names):
            if CONTROL.search(name):
                raise BuildFailedError(
                    f"the name {name!r} holds control characters, which no reader of artifacts takes",
                    where="engine info",
                    remedy="rename that input, output or part of the model",
                )

    def of_abi(self, abi: int, *, where: str) -> EngineInfo:
        """Returns the same engine info in a different ABI version.

        Raises:
            IncompatibleError: the other version has no field for something that the engine needs.
        """
        other = replace(self, abi_version=abi)
        used = {name for name, value, default in self._optional() if value != default}
        for name in FIELDS[FIELD_COUNT[abi] :]:
            if name in used:
                raise IncompatibleError(
                    f"the engine {self.name} needs {name.replace('_', ' ')}, which engine info of ABI version {abi} "
                    "cannot express",
                    where=where,
                    remedy="keep the release of Torch-TensorRT that it was made for",
                )
        return other

    def _optional(self) -> Iterator[tuple[str, object, object]]:
        """Yields the fields that only some ABI versions have: name, value, and what their absence means."""
        yield "requires_output_allocator", self.requires_output_allocator, False
        yield "resource_allocation_strategy", self.dynamic_resources, False
        yield "requires_native_multidevice", self.requires_native_multidevice, False
        yield "aliased_io", self.aliased_io, ()

    @classmethod
    def parse(cls, fields: Sequence[object], *, where: str) -> EngineInfo:
        """Reads a list of any known ABI version; the engine field is not looked at.

        Raises:
            MalformedArtifactError: the ABI version is unknown, or the number or the form of the fields is wrong.
        """
        text = _checked_fields(fields, where)
        flags = [_flag(text, name, where) for name in ("hardware_compatible", *FIELDS[9:12])]
        return cls(
            name=text["name"],
            device=RuntimeDevice.parse(text["device"], where=where),
            input_names=_binding_names(text, "input_binding_names", where),
            output_names=_binding_names(text, "output_binding_names", where),
            hardware_compatible=flags[0],
            metadata=text["metadata"],
            target_platform=text["target_platform"],
            requires_output_allocator=flags[1],
            dynamic_resources=flags[2],
            requires_native_multidevice=flags[3],
            aliased_io=_parse_aliases(text.get("aliased_io", ""), where),
            abi_version=int(text["abi_version"]),
        )


def join_binding_names(names: Sequence[str]) -> str:
    """Joins binding names as the runtime splits them.

    Raises:
        BuildFailedError: a name holds a separator, which would corrupt the list.
    """
    for name in names:
        if _LIST_SEPARATOR in name or _ALIAS_SEPARATOR in name:
            raise BuildFailedError(
                f"the binding name {name!r} holds '%' or '@', which the runtime uses as separators",
                where="engine bindings",
                remedy="rename that input or output of the model",
            )
    return _LIST_SEPARATOR.join(names)


def completed(fields: tuple[str, ...]) -> tuple[str, ...]:
    """Completes the fields of a placeholder node that Torch-TensorRT 2.11 wrote: one is missing there.

    That release has ABI version 8, but its operator has no argument for the last field,
    ``resource_allocation_strategy``, whose default is 0.
    """
    return (*fields, "0") if fields[:1] == ("8",) and len(fields) == FIELD_COUNT[8] - 1 else fields


def check_fields(fields: Sequence[object], *, where: str) -> None:
    """Checks the ABI version and the number of fields, which the C++ constructor does not.

    Raises:
        MalformedArtifactError: one of them is wrong, or a field other than the engine is not text.
    """
    _checked_fields(fields, where)


def _checked_fields(fields: Sequence[object], where: str) -> dict[str, str]:
    abi = fields[0] if fields else None
    if not isinstance(abi, str) or abi not in map(str, FIELD_COUNT):
        raise MalformedArtifactError(
            f"engine info of ABI version {str(abi)[:20]!r} is unknown (known: 6 to {CURRENT_ABI})", where=where
        )
    expected = FIELD_COUNT[int(abi)]
    if len(fields) != expected:
        raise MalformedArtifactError(
            f"engine info of ABI version {abi} has {expected} fields, not {len(fields)}", where=where
        )
    text = {}
    for name, value in zip(FIELDS, fields, strict=False):
        if name == "engine":
            continue
        if not isinstance(value, str):
            raise MalformedArtifactError(f"engine info field {name!r} is {type(value).__name__}, not text", where=where)
        text[name] = value
    return text


def _flag(text: dict[str, str], name: str, where: str) -> bool:
    value = text.get(name, "0")
    if value not in ("0", "1"):
        raise MalformedArtifactError(f"engine info field {name!r} is {value!r}, not 0 or 1", where=where)
    return value == "1"


def _binding_names(text: dict[str, str], field: str, where: str) -> tuple[str, ...]:
    names = _split(text[field])
    if any(_ALIAS_SEPARATOR in name or not name for name in names):
        raise MalformedArtifactError(f"engine info field {field!r} holds an empty name, or one with '@'", where=where)
    return names


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(_LIST_SEPARATOR)) if text else ()


def _parse_aliases(text: str, where: str) -> tuple[AliasedIO, ...]:
    aliases = []
    for record in _split(text):
        parts = record.split(_ALIAS_SEPARATOR)
        if len(parts) != 3:
            raise MalformedArtifactError(f"the aliased-io record {record!r} is not output@input@kind", where=where)
        aliases.append(AliasedIO(*parts))
    return tuple(aliases)
