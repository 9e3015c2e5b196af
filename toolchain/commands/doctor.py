"""``trtcross doctor``: what this machine can build, what it can run, and what is missing."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from toolchain.cli.output import Output, requirement_lines, verb
from toolchain.host.requirements import Requirement, State
from toolchain.progress import working
from toolchain.targets import host_platform

GROUP = "trtcross.doctor"


@click.command()
@verb
def doctor(output: Output) -> None:
    """Show what this machine can build, what it can run, and what is missing."""
    machine = f"{host_platform()}, Python {platform.python_version()}"
    output.put(machine={"platform": host_platform(), "python": platform.python_version()})
    output.say(f"this machine: {machine}")
    abilities = {}
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        with working(f"looking at what it takes to {entry.name}"):
            requirements: list[Requirement] = entry.load()()
        able = all(item.state is State.MET for item in requirements)
        abilities[entry.name] = {"able": able, "requirements": [item.to_json() for item in requirements]}
        output.say(f"can it {entry.name}? {'yes' if able else 'no'}")
        for line in requirement_lines(requirements):
            output.say(line)
    output.put(abilities=abilities)
