"""IQA and ASE by Q-Align: a language model says how good a clip is, in five words. Wu et al., ICML 2024.

The model (``q-future/one-align``, 8 billion weights) needs an old transformers, so it runs in a Python of its own:

    python3.10 -m venv qalign
    qalign/bin/pip install "transformers==4.36.1" torch torchvision accelerate sentencepiece protobuf einops icecream

``qalign_worker.py`` runs there alone: it gets pictures and answers with what the model's own `score` makes of them: 1
to 5, the five levels (excellent 5, good 4, fair 3, poor 2, bad 1) weighted by the softmax of their words' logits.
"""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from skyreels_audio.media import InputError

Task = Literal["quality", "aesthetics"]
PICTURES = 8  # of a clip, evenly spaced, shown to the model as a video
WORKER = Path(__file__).with_name("qalign_worker.py")


class QAlign:
    """The worker, kept running: loading takes minutes. A context manager.

    Args:
        python: the interpreter with the pinned transformers.
        model: folder of ``q-future/one-align``.
    """

    def __init__(self, python: Path, model: Path, worker: Path = WORKER) -> None:
        self.command = [str(python), str(worker), str(model)]

    def __enter__(self) -> "QAlign":
        try:
            self._process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            raise InputError(f"Q-Align's Python {self.command[0]} cannot be started: {error.strerror}.") from error
        return self

    def __call__(self, frames_FHWC: np.ndarray, task: Task) -> float:
        """The score of a clip. Raises InputError if the worker has died."""
        chosen = frames_FHWC[np.linspace(0, len(frames_FHWC) - 1, min(PICTURES, len(frames_FHWC))).round().astype(int)]
        with tempfile.TemporaryDirectory() as folder:
            paths = [str(Path(folder) / f"{number}.png") for number in range(len(chosen))]
            for path, frame in zip(paths, chosen, strict=True):
                Image.fromarray(frame).save(path)
            assert self._process.stdin is not None and self._process.stdout is not None
            try:
                print(json.dumps({"pictures": paths, "task": task}), file=self._process.stdin, flush=True)
                answer = self._process.stdout.readline()
            except BrokenPipeError:
                answer = ""
        if not answer:
            raise InputError(f"Q-Align's worker ended: {' '.join(self.command)} (exit {self._process.wait()}).")
        return float(json.loads(answer)["score"])

    def __exit__(self, *error: object) -> None:
        self._process.communicate()  # closes its input, which ends it
