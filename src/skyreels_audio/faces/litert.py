"""One LiteRT network of the package data: float image in, arrays out, on one CPU thread."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import as_file, files
from threading import Lock

import numpy as np


class Network:
    """A ``.tflite`` file of ``faces/assets``. Calls are serialised: an interpreter holds its tensors as state."""

    def __init__(self, name: str):
        from ai_edge_litert.interpreter import Interpreter

        with as_file(files("skyreels_audio.faces") / "assets" / f"{name}.tflite") as path, _quiet():
            self._interpreter = Interpreter(str(path), num_threads=1)
            self._interpreter.allocate_tensors()
        self._inputs = [detail["index"] for detail in self._interpreter.get_input_details()]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]
        self._lock = Lock()

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Run on ``inputs`` (float32, without the batch axis) and return the outputs, each with its batch axis."""
        with self._lock:
            for index, value in zip(self._inputs, inputs, strict=True):
                self._interpreter.set_tensor(index, np.ascontiguousarray(value, np.float32)[None])
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._outputs]


@cache
def network(name: str) -> Network:
    """Load a network once per process."""
    return Network(name)


@contextmanager
def _quiet() -> Iterator[None]:
    """LiteRT announces its delegate on file descriptor 2, and Python has no switch for it; errors are exceptions."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
