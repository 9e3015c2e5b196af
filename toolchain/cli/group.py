"""A group of verbs whose help has each summary whole."""

from __future__ import annotations

import click


class VerbGroup(click.Group):
    """Writes the first sentence of each verb's help, where click would cut it at 45 characters."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, _summary(command.help or "")) for name, command in self.commands.items()])


def _summary(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())
