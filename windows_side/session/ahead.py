"""What takes time and needs no artifact, done in a thread while the artifact is read: CUDA and TensorRT-RTX started."""

from __future__ import annotations

import logging
import re
from concurrent.futures import Future
from threading import Thread
from typing import TYPE_CHECKING, Any

from toolchain.errors import UsageError
from windows_side.engines.driver import start_driver

if TYPE_CHECKING:
    from windows_side.engines.cuda import Gpu

logger = logging.getLogger("trtcross.session")

Started = tuple["Gpu", Any]


def device_index(device: Any) -> int:
    """The index of a GPU that is named by it, as ``cuda:1``, or by a device of torch's.

    Raises:
        UsageError: it is no GPU's name.
    """
    match = re.fullmatch(r"(?:cuda(?::([0-9]{1,3}))?|([0-9]{1,3}))", str(device))
    if not match or isinstance(device, bool):
        raise UsageError(
            f"there is no GPU {str(device)!r} here", where="device", remedy="pass a GPU's index, or 'cuda:0'"
        )
    return int(match[1] or match[2] or 0)


def start_ahead(index: int) -> Future[Started]:
    """Starts a GPU and TensorRT's runtime on it; whoever asks for the result gets them, or the error."""
    future: Future[Started] = Future()

    def work() -> None:
        try:
            future.set_result(_started(index))
        except BaseException as error:  # noqa: BLE001  # it is raised where the result is asked for
            future.set_exception(error)

    Thread(target=work, name="trtcross-start").start()
    return future


def _start_driver(index: int) -> None:
    """Beside the imports, which take as long as the driver does."""
    if start_driver(index):
        logger.debug("the driver has started")


def _started(index: int) -> Started:
    driver = Thread(target=_start_driver, args=(index,), name="trtcross-driver")
    driver.start()
    from windows_side.engines import cuda, engine

    logger.debug("CUDA's bindings are imported")
    engine.import_tensorrt()
    logger.debug("TensorRT-RTX is imported")
    driver.join()
    gpu = cuda.Gpu(index)
    gpu.start()
    logger.debug("CUDA has started")
    runtime = engine.create_runtime()
    logger.debug("TensorRT-RTX has started")
    return gpu, runtime
