"""Writes ``docs/build/zoo.md`` from the rows' results, and reports what has become worse since the last ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.zoo.row import TIMES_EAGER, Row

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results.json")
GPU = Path(__file__).with_name("gpu.json")
UPSTREAM = Path(__file__).with_name("upstream.json")
TABLE = REPOSITORY / "docs" / "build" / "zoo.md"

Record = dict[str, Any]
_STATES = ("refused", "unknown", "wrong", "right")
_BUILT = ("wrong", "right", "unknown")
# Errors of fp32 differ between machines; only one that is ten times larger, and not tiny, counts as worse.
_TIMES, _TINY = 10.0, 2e-5


def read_records(path: Path) -> dict[str, Record]:
    """Returns the results of a JSON file by name; none where there is no file yet."""
    return {record["name"]: record for record in json.loads(path.read_text())} if path.exists() else {}


def read_lines(path: Path) -> dict[str, Record]:
    """Returns the newest result of each name, from a file with a line of JSON for each."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {record["name"]: record for record in map(json.loads, lines)}


def write_records(path: Path, records: Mapping[str, Record]) -> None:
    lines = [json.dumps(record) for _, record in sorted(records.items())]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def worse(before: Record, after: Record) -> str | None:
    """Returns what of a row has become worse, or None."""
    if _STATES.index(after["state"]) < _STATES.index(before["state"]):
        return f"was {before['state']}, is {after['state']}: {after.get('reason') or _errors(after)}"
    if after["state"] == "refused" or before["state"] == "refused":
        return None
    if after["engines"] > before["engines"]:
        return f"{after['engines']} engines instead of {before['engines']}"
    if _in_torch(after) > _in_torch(before):
        return f"{_in_torch(after)} operators stay in PyTorch, {_in_torch(before)} did before"
    old, new = (max(record.get("errors") or [0.0]) for record in (before, after))
    if new > max(_TINY, _TIMES * old):
        return f"an error of {new:.1e}, {old:.1e} before"
    return None


def _in_torch(record: Record) -> int:
    return sum(record["in_torch"].values())


def whole(record: Record) -> bool:
    """Whether the model was built as exactly one engine."""
    return record["state"] in _BUILT and record["engines"] == 1


def as_eager(record: Record) -> bool:
    """Whether a result on a GPU is at most ``TIMES_EAGER`` times worse than eager PyTorch's in the same precision."""
    if not {"error", "graph_error", "eager_error"} <= record.keys():
        return False
    return bool(max(record["error"], record["graph_error"]) <= TIMES_EAGER * record["eager_error"])


def write_table(rows: Sequence[Row], records: Mapping[str, Record]) -> None:
    """Writes the page, with the results on a GPU and those of upstream."""
    gpu, upstream = read_records(GPU), read_records(UPSTREAM)
    known = [row for row in rows if row.name in records]
    lines = [_HEAD, *_sums(rows, records, gpu, upstream), "", _FOUND]
    for group in dict.fromkeys(row.group for row in known):
        lines += [f"## {group[0].upper()}{group[1:]}", "", *_COLUMNS]
        of_group = [row for row in known if row.group == group]
        lines += [_line(row, records[row.name], gpu.get(row.name), upstream.get(row.name)) for row in of_group]
        lines.append("")
    TABLE.write_text("\n".join(lines).rstrip() + "\n")


_HEAD = """# The zoo: public models

These are public architectures, built as their users would have them: batches from 1, pictures and texts of any size
where the architecture takes any. Weights are random, depth and width are small, and the structure is the
architecture's own. Rows without a package were written here from the paper. `make zoo` builds them and writes this
page; `make zoo ONLY='convnext*'` builds some of them.

- **options** are those of `trtcross build`; each range of sizes is a `--dynamic`.
- **s** and **GiB** are seconds of the processor, and the peak memory, of the whole build with the comparison.
- **error** is relative L2 of the worst output against eager PyTorch in fp32, with the TensorRT networks computed on
  the CPU by an interpreter: at the example's sizes, the least and the greatest.
- **on a GPU** is the same of the artifact itself, the worst of its golden samples, launched and as a CUDA graph, and
  of eager PyTorch in the same precision there (TF32 in fp32, as engines have it). A row is **wrong** where `verify`
  refuses the artifact; where that is so and eager PyTorch's own error is at least a quarter of it, it is **as eager**:
  rounding alone does it, with these random weights. A GPU in italics is not on TensorRT-RTX's list.
- **upstream** is the error of `torch_tensorrt.compile` there at the same three sizes, and its seconds; where that
  fails, of `torch.export` and `torch_tensorrt.dynamo.compile`.
"""
_FOUND = """## What an H100 showed

On one H100 (compute capability 9.0, which is not on TensorRT-RTX's list), TensorRT-RTX 1.6.1.120, 27 November 2026:

- **SSDLite** is wrong with kernels for one size (0.1; 1.4 before `build` gave grouped convolutions kernels of one
  size), in [the heads on its map of 1x1](../benchmarks/gpu.md#kernels-for-any-size-and-for-one), and **GhostNet** at
  its greatest size (0.3 as a CUDA graph). With kernels for any size, which a first call runs, both are as right as
  eager PyTorch. `verify` refuses them. Upstream's own `dynamo.compile` of SSDLite is wrong there too.
- **MobileNetV4** was wrong by 7 and the **UNet of Stable Video Diffusion** by 0.5; both are right since `build` unifies
  [grouped convolutions](../benchmarks/gpu.md#grouped-convolutions-of-as-many-channels) and takes the value of
  [an only key](../benchmarks/gpu.md#attention-to-one-key).
- **YOLO** and **TinyViT** are more than four times worse than eager PyTorch (4.3 and 4.9 times). Every tensor was
  compared: no layer is to blame. Their first convolutions [round more](../benchmarks/gpu.md#tf32) in kernels for one
  size, and eager PyTorch computes those in fp32. `verify` accepts TinyViT.
- **Depth Anything** was right, and wrong as a CUDA graph (0.5) after a call of other sizes. Such graphs are
  [captured again](../run/cuda-graphs.md) since, and it is right in every order of sizes.
- **EdgeNeXt** was right, and wrong as a CUDA graph (1.0): TensorRT does not enqueue an engine with a loop in a capture,
  and Torch-TensorRT ignores that. Its running sums are no loops since, and it is right as a graph. `load` compares a
  first graph with a call since, and refuses the old artifact there.
- **FastViT** and **RealPLKSR** were wrong (7.9 and 1.2) and are right since `build` folds batch norms and puts results
  of convolutions first.
- **RAFT** of torchvision was four engines, and could not be captured in a CUDA graph, because sizes were copied back
  from the GPU; it is one engine since, and right as a graph.
- **RT-DETR** chooses its queries by their scores, and random weights give scores that are nearly equal: in TF32 eager
  PyTorch chooses others too (0.5).
- Rows without a result there have artifacts over 60 MB.
- `torch_tensorrt.dynamo.cross_compile_for_windows` of ResNet-18, BERT and Stable Diffusion's UNet ended with
  "NotImplementedError: Windows cross compilation feature is not available" there. Without a GPU `import torch_tensorrt`
  fails: "RuntimeError: Found no NVIDIA driver on your system".
"""
_COLUMNS = (
    "| model | from | options | engines | in engines | stays in PyTorch | s | GiB | error | on a GPU | upstream "
    "| built |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|",
)


def _sums(
    rows: Sequence[Row], records: Mapping[str, Record], gpu: Mapping[str, Record], upstream: Mapping[str, Record]
) -> list[str]:
    known = [records[row.name] for row in rows if row.name in records]
    states = Counter(record["state"] for record in known)
    built = sum(states[state] for state in _BUILT)
    ran = [gpu[record["name"]] for record in known if record["name"] in gpu]
    tried = [upstream[record["name"]] for record in known if record["name"] in upstream]
    seconds = sum(record.get("cpu", 0) for record in known)
    return [
        f"| of {len(rows)} | rows |",
        "|---|---|",
        f"| built | {built} |",
        f"| as one engine | {sum(map(whole, known))} |",
        f"| right by the interpreter | {states['right']} |",
        f"| right on a GPU, of {len(ran)} that ran there | {sum(bool(record.get('right')) for record in ran)} |",
        f"| refused by `verify` there, but at most {TIMES_EAGER:.0f} times worse than eager PyTorch | "
        f"{sum(not record.get('right') and as_eager(record) for record in ran)} |",
        f"| built by upstream, of {len(tried)} that were tried | {sum(bool(record['built']) for record in tried)} |",
        f"| right by upstream | {sum(bool(record['right']) for record in tried)} |",
        f"| minutes of the processor, all rows that were tried | {seconds / 60:.0f} |",
        f"| not built | {states['refused']} |",
        f"| not tried yet | {len(rows) - len(known)} |",
    ]


def _line(row: Row, record: Record, gpu: Record | None, upstream: Record | None) -> str:
    built = f"{record['revision']}, {record.get('device', 'CPU')}, {record['date']}"
    if record["state"] == "refused":
        cells = ["", "", f"**not built**: {_escaped(record.get('reason', ''))}"]
        errors = ""
    else:
        cells = [str(record["engines"]), f"{record['in_engines']} of {record['operators']}", _stays(record["in_torch"])]
        errors = _errors(record)
        if record["state"] != "right":
            errors = f"**{record['state']}** {errors} {_escaped(record.get('reason', ''))}".strip()
    seconds = f"{record.get('cpu', 0):.0f}" if "cpu" in record else ""
    memory = f"{record['memory'] / 2**30:.1f}" if "memory" in record else ""
    source = f"{row.package} {record.get('package', '')}".strip() if row.package else "the paper"
    words = _escaped(row.words())
    return (
        "| "
        + " | ".join(
            [
                row.name,
                source,
                f"`{words}`" if words else "",
                *cells,
                seconds,
                memory,
                errors,
                _gpu(gpu),
                _upstream(upstream),
                built,
            ]
        )
        + " |"
    )


def _gpu(record: Record | None) -> str:
    if record is None:
        return ""
    where = f"*{record['gpu']}*, {record.get('revision', '')}, {record['date']}".replace(", ,", ",")
    if "error" not in record:
        return f"**failed**: {_escaped(record.get('failed', ''))} ({where})"
    errors = " / ".join(f"{record[key]:.0e}" for key in ("error", "graph_error") if key in record)
    eager = f", eager {record['eager_error']:.0e}" if "eager_error" in record else ""
    judged = "" if record["right"] else "**as eager** " if as_eager(record) else "**wrong** "
    return f"{judged}{errors}{eager} ({where})"


def _upstream(record: Record | None) -> str:
    if record is None:
        return ""
    if not record["built"]:
        why = record.get("export_failed") or record.get("compile_failed") or record.get("failed", "")
        return f"**not built**: {_escaped(why)[:120]}"
    if "error" not in record:
        return f"**failed**: {_escaped(record.get('failed', ''))[:120]}"
    return f"{'' if record['right'] else '**wrong** '}{record['error']:.0e}, {record['compile_seconds']:.0f} s"


def _errors(record: Record) -> str:
    return " ".join(f"{error:.0e}" for error in record.get("errors", []))


def _stays(in_torch: Mapping[str, int]) -> str:
    return ", ".join(f"{name.removeprefix('aten.')} {count}" for name, count in sorted(in_torch.items()))


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:300]


def today() -> str:
    return date.today().isoformat()
