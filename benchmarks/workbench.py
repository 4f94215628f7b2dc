"""A checkpoint on the bench: makes videos, passes frames through its autoencoder, remembers what was measured."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skyreels_audio import evaluation
from skyreels_audio.faces import detect_faces
from skyreels_audio.faces.align import placement
from skyreels_audio.generation.compositing import Aligned, Compositor
from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
from skyreels_audio.synthetic.codes import EYES, KEEP_EYES, code_of
from skyreels_audio.synthetic.motion import Motion
from skyreels_audio.synthetic.render import Renderer
from skyreels_audio.threads import bound_threads

bound_threads()


@dataclass(frozen=True)
class Cases:
    """Results of single cases in a folder, one JSON file each, so that an interrupted run goes on where it stopped."""

    folder: Path

    def __call__(self, name: str, measure: Callable[[], dict]) -> dict:
        """What is stored under the name, else what `measure` returns."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            started = time.perf_counter()
            result = json.dumps(measure(), default=lambda array: np.round(array, 4).tolist())
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(result)
            partial.rename(path)
            print(f"  {name}: {time.perf_counter() - started:.1f} s", flush=True)
        return json.loads(path.read_text())


class Workbench:
    """A loaded checkpoint, the cases measured on it, and those measured on true videos (`truth`)."""

    def __init__(self, model: Path, work: Path, quick: bool, photographs: Path | None, examples: Path) -> None:
        started = time.perf_counter()
        fast = torch.cpu.get_capabilities().get("avx512_bf16")  # the choice of `generate`
        dtype = torch.bfloat16 if fast else torch.float32
        self.pipe = SkyReelsAudioPipeline.from_pretrained(str(model), dtype=dtype)
        self.pipe.set_progress_bar_config(disable=True)
        self.load_seconds = time.perf_counter() - started
        self.settings = self.pipe.settings()
        self.size = (self.settings.height, self.settings.width)
        package = Path(evaluation.__path__[0]).parent
        measured_by = [*measure_files(Path(__file__).parent), *measure_files(package / "evaluation")]
        measures = fingerprint([*measured_by, *code(package / "synthetic")])
        weights = sorted(path for path in model.rglob("*") if path.is_file())
        maker = fingerprint([*weights, *code(package / "generation"), *code(package / "models")])
        self.cases = Cases(work / f"{maker}-{measures}")
        self.truth = Cases(work / f"truth-{self.size[0]}x{self.size[1]}-{measures}")
        self.quick, self.photographs, self.examples = quick, photographs, examples

    @cached_property
    def renderer(self) -> Renderer:
        return Renderer(self.size)

    def generate(
        self, image: np.ndarray | None, waveform: np.ndarray, prompt: str, seed: int = 0, motion: float | None = None
    ) -> np.ndarray:
        """A video in the checkpoint's default settings: uint8 [F, H, W, 3]; ``motion`` 0 moves the mouth alone."""
        generator = torch.Generator().manual_seed(seed)
        return np.stack(list(self.pipe(image, waveform, prompt, generator=generator, motion=motion).frames))

    def true_codes(self, image: np.ndarray, motion: Motion) -> np.ndarray:
        """The picture moved by the true codes of a motion: what the decoder would show of a model without mistakes."""
        codes_FN = torch.from_numpy(code_of(motion.weights_TK))
        codes_FN[:, KEEP_EYES] = 1 - codes_FN[:, EYES].amax(1)
        return np.stack(list(self.compositor(image).frames(codes_FN)))

    def compositor(self, image: np.ndarray) -> Compositor:
        """For the largest face of a picture, of which only the face moves."""
        vae: Any = self.pipe.vae
        size = tuple(vae.config.size)
        face = detect_faces(image)[0]
        aligned = Aligned(image, placement(face.landmarks, size), size, landmarks=face.landmarks)
        return Compositor(aligned, vae, head=False)


def measure_files(folder: Path) -> list[Path]:
    """The code and weights whose change makes remembered cases stale."""
    mine = {
        ".py": ("model_", "workbench") if folder.name == "benchmarks" else ("",),
        ".safetensors": ("",),
        ".npz": ("",),
    }
    files = (path for path in folder.rglob("*") if path.suffix in mine)
    return sorted(path for path in files if path.name.startswith(mine[path.suffix]))


def code(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def fingerprint(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
