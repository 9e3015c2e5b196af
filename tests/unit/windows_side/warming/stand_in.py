"""A stand-in for the process that compiles kernels, which needs a GPU; it does what ``$STAND_IN`` says.

Everything around it is real: the process, what it writes, how it is ended, and the files of the cache.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from pathlib import Path

from toolchain.errors import IncompatibleError
from windows_side.kernel_files import KernelFile
from windows_side.warming import child


def main(job_file: str, said: str) -> None:
    job = json.loads(Path(job_file).read_text("utf-8"))
    behaviour = os.environ["STAND_IN"]
    child._end_with_parent()
    with Path(said).open("a", encoding="utf-8") as events:
        for call in job["calls"]:
            described = {"sizes": call["sizes"], "cuda_graphs": False}
            child._send(events, kind="start", **described, seconds=0.0)
            if behaviour == "crashes":
                print("the driver has crashed", flush=True)
                os._exit(139)
            if behaviour == "refuses":
                child._send(events, error=IncompatibleError("the GPU is gone", where="here", remedy="wait").to_json())
                return
            if behaviour == "writes":
                Path(job["folder"], "pid").write_text(str(os.getpid()))
                files = [KernelFile(Path(job["folder"]), {"model": str(number)}) for number in range(4)]
                for number in itertools.count():
                    files[number % 4].write(os.urandom(2**20) + str(number).encode())
            time.sleep(0.5 if behaviour == "takes_time" else 0)
            child._send(events, kind="end", **described, seconds=0.5)
        child._send(events, kind="done")


if __name__ == "__main__":
    main(*sys.argv[1:])
