"""A factory that prints texts like those of the toolchain, none of which may be taken for an event or a document."""

from __future__ import annotations

import sys
from typing import Any


def talkative() -> Any:
    for stream in (sys.stdout, sys.stderr):
        print("[talked] nonsense ...", file=stream, flush=True)
        print('{"ok": true}', file=stream, flush=True)
        print('{"event": "start", "phase": "talked"}', file=stream, flush=True)
    raise RuntimeError("no model")
