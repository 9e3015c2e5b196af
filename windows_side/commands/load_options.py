"""Options of the command line that set how ``load`` works."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from toolchain.cli.fields import field_options
from toolchain.cli.options import signer_options
from toolchain.cli.output import Output
from toolchain.signing.policy import Policy
from windows_side.options import LoadOptions, RunOptions


def load_options(*more: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds options of ``load`` to a verb, whose function gets them as one argument, ``loading``.

    The decorator must be below ``@verb``.

    Args:
        more: fields of :class:`RunOptions` besides those that every verb has. With ``runtime`` among them, ``loading``
            is a :class:`RunOptions`; otherwise it is a :class:`LoadOptions`.
    """
    kind = RunOptions if "runtime" in more else LoadOptions
    fields = ("device", "allow_unlisted_gpu", *more, "trust")

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @field_options(kind, *fields)
        @signer_options
        @wraps(function)
        def command(output: Output, *, policy: Policy | None, **options: Any) -> None:
            chosen = {name: options.pop(name) for name in fields}
            loading = kind(policy=policy, progress=output.verbosity >= 0, **chosen)
            function(output, loading=loading, **options)

        return command

    return decorate
