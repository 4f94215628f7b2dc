"""A renderer that makes real files of a moving bar at once: what it costs is what its prompt says.

"held a" is held up until a test releases "a", "slow 3" takes three seconds, "crash" kills its process, "breaks" raises
what nobody expects.
"""

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from skyreels_audio.app.render import Report, Request
from skyreels_audio.media import InputError, VideoWriter, read_audio, read_image, write_image

SIDE, FPS = 128, 25


class StubRenderer:
    def __init__(self, model: str, device: str) -> None:
        pass

    def __call__(self, request: Request, inputs: dict[str, Path], folder: Path, report: Report) -> dict[str, Any]:
        log = os.environ.get("STUB_LOG")
        if match := re.match(r"held (\w+)", request.prompt):
            end = time.monotonic() + 900
            while not Path(f"{log}.{match[1]}").exists() and time.monotonic() < end:
                report("sample", 0, 1, None)
                time.sleep(0.05)
        seconds = float(match[1]) if (match := re.match(r"slow ([\d.]+)", request.prompt)) else 0.0
        for step in range(round(seconds / 0.1)):
            report("sample", step, round(seconds / 0.1), None)
            time.sleep(0.1)
        if request.prompt == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if request.prompt == "breaks":
            raise RuntimeError("nobody expected this")
        if request.prompt == "no face":
            raise InputError(f"{inputs['voice']}: no face was found.")
        background = np.full((SIDE, SIDE, 3), 40, np.uint8)
        if "picture" in inputs:
            background = np.asarray(Image.fromarray(read_image(inputs["picture"])).resize((SIDE, SIDE)))
        count = max(1, round(len(read_audio(inputs["voice"])) / 16_000 * FPS))
        with VideoWriter(folder / "result.mp4", SIDE, SIDE, FPS, inputs["voice"]) as writer:
            for index in range(count):
                frame = background.copy()
                frame[-8:, : 4 + index % (SIDE - 4)] = (200, 80, 40)
                writer.write(frame)
                report("write", index + 1, count, frame if index % 5 == 0 else None)
        write_image(folder / "sheet.png", background)
        (folder / "report.json").write_text('{"stub": true}\n')
        if log:  # one line for each video made to its end
            with open(log, "a") as file:
                file.write(f"{request.seed}\n")
        return {"num_frames": count, "width": SIDE, "height": SIDE, "fps": float(FPS), "untouched": []}
