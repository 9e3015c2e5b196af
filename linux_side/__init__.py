"""The producer: exports and compiles models, and writes artifacts, on Linux.

``build`` runs in a child process, so it imports nothing into the caller's process and changes no state of its torch::

    from linux_side import BuildOptions, build

    artifact = build("models:resnet50", "resnet50.pt2", precision="fp16", dynamic=["x.0=1:4:8"])
    artifact = build(exported_program, "resnet50.pt2", options=BuildOptions(gpus=["sm_89"]))

``build_many`` builds several artifacts of one model and does their common work once::

    from linux_side import build_many

    built = build_many(
        "models:resnet50",
        {"fp32.pt2": BuildOptions(), "fp16.pt2": BuildOptions(precision="fp16")},
    )
    assert all(one.error is None for one in built)

``export`` turns a GraphModule compiled by ``torch_tensorrt.dynamo`` into an exported program, in this process::

    from linux_side import export

    program = export(compiled, cross_compile=True)  # placeholder nodes with base64 engines

Everything else in this package is internal (``docs/reference/api.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.lazy import lazy_names

if TYPE_CHECKING:
    from linux_side.driver.building import build
    from linux_side.driver.many import Built, build_many
    from linux_side.exporter import export
    from linux_side.options import BuildOptions

__all__ = ["BuildOptions", "Built", "build", "build_many", "export"]

# Only `export` needs torch, so each name is imported at its first use.
__getattr__ = lazy_names(
    __name__,
    {
        "BuildOptions": "linux_side.options",
        "Built": "linux_side.driver.many",
        "build": "linux_side.driver.building",
        "build_many": "linux_side.driver.many",
        "export": "linux_side.exporter",
    },
)
