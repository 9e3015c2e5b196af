"""``trtcross completion``: the script by which a shell completes our verbs, options and values on Tab."""

from __future__ import annotations

import os
from typing import Any

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, get_completion_class

from toolchain.cli.output import Output, verb

PROGRAM = "trtcross"
VARIABLE = "_TRTCROSS_COMPLETE"


class PowerShellComplete(ShellComplete):
    """Completion for PowerShell 5 and 7; PowerShell itself completes files where a command offers nothing."""

    name = "powershell"
    source_template = """\
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($word, $command, $cursor)
    $words = $command.CommandElements | ForEach-Object { $_.Extent.Text }
    $env:%(complete_var)s = 'powershell_complete'
    $env:COMP_WORDS = $words -join "`n"
    $env:COMP_INCOMPLETE = $word
    try {
        %(prog_name)s | ForEach-Object {
            $value, $help = $_ -split "`t", 2
            [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $help)
        }
    } finally {
        Remove-Item Env:%(complete_var)s, Env:COMP_WORDS, Env:COMP_INCOMPLETE
    }
}
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        words, incomplete = os.environ.get("COMP_WORDS", "").split("\n")[1:], os.environ.get("COMP_INCOMPLETE", "")
        if incomplete and words and words[-1].strip("'\"") == incomplete:
            words = words[:-1]
        return [word.strip("'\"") for word in words], incomplete

    def complete(self) -> str:
        offered = self.get_completions(*self.get_completion_args())
        return "\n".join(self.format_completion(item) for item in offered if item.type == "plain")

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.value}\t{item.help or item.value}"


add_completion_class(PowerShellComplete)

# click itself supports all of these but PowerShell.
SHELLS = ("bash", "zsh", "fish", "powershell")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@verb
def completion(output: Output, shell: str) -> None:
    """Print the script that lets SHELL complete verbs, options, their values and files.

    \b
    bash:        eval "$(trtcross completion bash)"             in ~/.bashrc
    zsh:         eval "$(trtcross completion zsh)"              in ~/.zshrc, after compinit
    fish:        trtcross completion fish | source              in ~/.config/fish/config.fish
    PowerShell:  trtcross completion powershell | Out-String | Invoke-Expression      in $PROFILE
    """
    script = _script(shell)
    output.put(shell=shell, script=script)
    output.say(script, level=-1)


def _script(shell: str) -> str:
    found: Any = get_completion_class(shell)
    root = click.get_current_context().find_root().command
    template: ShellComplete = found(root, {}, PROGRAM, VARIABLE)
    return template.source_template % template.source_vars()
