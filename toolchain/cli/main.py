"""The ``trtcross`` command. Each verb is an entry point of the side that does its work, imported when called."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

from toolchain.errors import MissingComponentError, TrtcrossError, UsageError
from toolchain.host.installed import install_line, own_version

GROUP = "trtcross.commands"

# Verbs that need neither side, imported by their names.
OWN = ("convert", "doctor", "inspect", "sign")

# One line each, so that `trtcross --help` imports no verb.
SUMMARIES = {
    "build": "Compile a model into an artifact.",
    "inspect": "Show what an artifact is, what it needs and what is in it.",
    "check": "Decide whether an artifact can run on this machine, and why not.",
    "verify": "Check an artifact's integrity, structure, loading and numbers.",
    "warm": "Compile an artifact's kernels ahead of its first call.",
    "run": "Run an artifact on inputs from a file.",
    "bench": "Measure latency, throughput and memory here.",
    "convert": "Convert an artifact to a different platform or format.",
    "select": "Choose the best artifact for this machine, and explain why not the others.",
    "matrix": "Build and verify many models for many targets.",
    "sign": "Sign an artifact, in a file beside it.",
    "store": "List, verify and prune the build cache.",
    "doctor": "Show what this machine can build, what it can run, and what is missing.",
    "completion": "Print the script that completes this command in a shell.",
}


class Verbs(click.Group):
    """Finds verbs: this package's by name, all others in the entry-point group."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name == "completion":
            from toolchain.cli.completion import completion

            return completion
        if name in OWN:
            own: click.Command = getattr(importlib.import_module(f"toolchain.commands.{name}"), name)
            return own
        from importlib import metadata  # the import takes as long as all others of `trtcross inspect` together

        for entry in metadata.entry_points(group=GROUP, name=name):
            try:
                command: click.Command = entry.load()
            except ModuleNotFoundError as error:
                side = entry.value.partition("_")[0]
                extra = {"linux": "producer", "windows": "consumer"}.get(side, "dev")
                raise MissingComponentError(
                    f"{name} needs the module {error.name}, which is not installed here",
                    remedy=install_line(extra),
                ) from error
            return command
        return None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if args[0] in SUMMARIES:
                raise MissingComponentError(
                    f"the verb {args[0]} is not registered in this Python: trtcross is not installed in it",
                    where=sys.executable,
                    remedy="install the package; sources on the path are not enough",
                ) from error
            if near := difflib.get_close_matches(args[0], SUMMARIES, 1):
                raise click.UsageError(f"there is no verb {args[0]!r}: do you mean {near[0]!r}?", ctx) from error
            raise

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offers verbs with their summaries, without importing any of them."""
        from click.shell_completion import CompletionItem

        offered = [CompletionItem(name, help=text) for name, text in SUMMARIES.items() if name.startswith(incomplete)]
        return offered or click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(SUMMARIES.items()))


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"trtcross {own_version()}")
        ctx.exit()


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version)
def cli() -> None:
    """Compile PyTorch models to TensorRT on Linux, ship one file, run it on Windows."""


def _refused(error: click.ClickException | TrtcrossError) -> int:
    """Reports an error of a command line that reached no verb; with ``--json`` it is in a document too."""
    from toolchain.cli.output import Output
    from toolchain.io.events import events_to_parent

    if isinstance(error, click.ClickException):
        error.show()
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "trtcross"
        problem: TrtcrossError = UsageError(error.format_message(), remedy=f"see `{command} --help`")
        problem.exit_code = error.exit_code
    else:
        problem = error
        click.echo(f"error: {error}", err=True)
    output = Output("", "--json" in sys.argv[1:], 0, events_to_parent())
    output.put(ok=False, error=problem.to_json())
    output.finish()
    return problem.exit_code


def main() -> None:
    """Runs the command line: the entry point of the console script."""
    # A console with a legacy code page must not turn a report into a crash.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if "_TRTCROSS_COMPLETE" in os.environ:
        import toolchain.cli.completion  # noqa: F401 - registers PowerShell
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    try:
        code = cli(prog_name="trtcross", standalone_mode=False, color=False if plain else None)
    except (click.ClickException, TrtcrossError) as error:
        code = _refused(error)
    except click.Abort:
        code = 130
    sys.exit(code)
