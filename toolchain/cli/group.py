"""A click group whose help shows each verb's summary in full."""

from __future__ import annotations

import click


class VerbGroup(click.Group):
    """Shows the first paragraph of each verb's help, which click would cut at 45 characters."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, _summary(command.help or "")) for name, command in self.commands.items()])


def _summary(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())
