"""Starts CUDA and TensorRT-RTX in a thread while the artifact is read: both take time and need no artifact."""

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
    """Returns the index of a GPU.

    Args:
        device: an index, a text such as ``cuda:1``, or a ``torch.device``.

    Raises:
        UsageError: the device is not a GPU.
    """
    match = re.fullmatch(r"(?:cuda(?::([0-9]{1,3}))?|([0-9]{1,3}))", str(device))
    if not match or isinstance(device, bool):
        raise UsageError(
            f"there is no GPU {str(device)!r} here", where="device", remedy="pass a GPU's index, or 'cuda:0'"
        )
    return int(match[1] or match[2] or 0)


def start_ahead(index: int) -> Future[Started]:
    """Starts a GPU and TensorRT's runtime on it, in a thread.

    Returns:
        A future of both; its ``result()`` raises what went wrong.
    """
    future: Future[Started] = Future()

    def work() -> None:
        try:
            future.set_result(_started(index))
        except BaseException as error:  # noqa: BLE001  # raised by the future's result()
            future.set_exception(error)

    Thread(target=work, name="trtcross-start").start()
    return future


def _start_driver(index: int) -> None:
    """Starts the driver in a thread, during the imports, which take as long."""
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
