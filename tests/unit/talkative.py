"""A factory that prints what the toolchain itself might: none of it may be taken for a phase or a document."""

from __future__ import annotations

import sys
from typing import Any


def talkative() -> Any:
    for stream in (sys.stdout, sys.stderr):
        print("[talked] nonsense ...", file=stream, flush=True)
        print('{"ok": true}', file=stream, flush=True)
        print('{"event": "start", "phase": "talked"}', file=stream, flush=True)
    raise RuntimeError("no model")
