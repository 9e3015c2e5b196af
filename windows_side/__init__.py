"""The consumer: checks whether an artifact fits this machine, loads it and runs it, on Windows and on Linux.

::

    from windows_side import Session, check, load, warm

    for requirement in check("resnet50.pt2"):  # or an open artifact; no torch is imported for this
        print(requirement.name, requirement.state, requirement.remedy)

    model = load("resnet50.pt2", device="cuda:0")  # digests, preflight, engines
    y = model(x)  # same call signature and output structure as the original model

    session = Session("resnet50.pt2", device=0)  # without PyTorch: numpy arrays, or any library's arrays on the GPU
    y = session(x)

    warm("resnet50.pt2", sizes=[{"x.0": 8}])  # compiles kernels ahead, in a process of its own

``replace_execute_engine_no_op_node`` replaces the placeholder nodes of an exported program by engines.
Everything else in this package is internal (``docs/reference/api.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.lazy import lazy_names

if TYPE_CHECKING:
    from windows_side.execution.model import LoadedModel
    from windows_side.loader.loading import load
    from windows_side.loader.replace import replace_execute_engine_no_op_node
    from windows_side.preflight.requirements import check
    from windows_side.session.session import Session
    from windows_side.warming.warm import warm

__all__ = ["LoadedModel", "Session", "check", "load", "replace_execute_engine_no_op_node", "warm"]

# Each name is imported when it is first used: `check` needs no torch.
__getattr__ = lazy_names(
    __name__,
    {
        "LoadedModel": "windows_side.execution.model",
        "Session": "windows_side.session.session",
        "check": "windows_side.preflight.requirements",
        "load": "windows_side.loader.loading",
        "replace_execute_engine_no_op_node": "windows_side.loader.replace",
        "warm": "windows_side.warming.warm",
    },
)
