"""The paper's ablations at a scale that a laptop trains: audio guidance, audio RoPE, joint training, the mask loss.

    make ablations                                      # trains five times a few minutes; see recipes/ablations
    python benchmarks/ablations.py --only guidance      # audio guidance on weights/tiny alone

Mouths are those of recipes/syncnet.yaml (read its header for the data), or of the recipe of `--mouths`. How windows
meet is taken from docs/results/fusion.json (benchmarks/fusion.py).

Writes docs/results/ablations.json, what every clip gave, and out of it ablations.md (by ablations_page.py). A run that
was interrupted goes on: trainings and what was measured are remembered in `--work`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ablations_mouths import AUDIO_DIM, FRAMES, LATENTS, PATCH, Mouths
from ablations_page import report
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from skyreels_audio import faces
from skyreels_audio.bundled import bundled
from skyreels_audio.evaluation.held_out import portrait, speaking_motion, true_video, voice
from skyreels_audio.evaluation.lips import CURVES, correlation, lip_curves
from skyreels_audio.evaluation.subjects import drawn
from skyreels_audio.generation.guidance import Guidance, Scale
from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
from skyreels_audio.generation.sampling import sample, set_timesteps
from skyreels_audio.generation.step import Batched, TransformerVelocity
from skyreels_audio.generation.windows import Windows
from skyreels_audio.models.syncnet import SyncNet, face_crops, load_sync_expert
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel
from skyreels_audio.synthetic.render import Renderer
from skyreels_audio.training.flow import FlowTask
from skyreels_audio.training.recipe import FlowRecipe, read_recipe
from skyreels_audio.training.sync import SyncTask
from skyreels_audio.training.trainer import fit

ROOT = Path(__file__).parents[1]
RECIPES = ("base", "without-rope", "rope-unaligned", "image-only", "without-mask-loss")
SCALES = (1.0, 3.0, 4.5)
STEPS = 12
TINY_FRAMES = 101
Clips = dict[str, list[float]]  # a metric's value for every clip


def start_model(folder: Path, rope: bool) -> None:
    """An untrained transformer of tiny width, of the class and arguments of the paper's, as a model folder."""
    if (folder / "model_index.json").exists():
        return
    torch.manual_seed(0)
    transformer: Any = SkyReelsAudioTransformer3DModel(
        num_attention_heads=4, attention_head_dim=32, text_dim=16, ffn_dim=512, num_layers=4, audio_dim=AUDIO_DIM,
        audio_rope=rope,
    )  # fmt: skip
    transformer.save_pretrained(folder / "transformer")
    (folder / "model_index.json").write_text("{}")


def trained(name: str, mouths: Mouths, work: Path) -> tuple[Any, dict[str, float]]:
    """A recipe's transformer with its averaged weights, and what its trainer measured at the end."""
    recipe: Any = read_recipe(ROOT / "recipes" / "ablations" / f"{name}.yaml")
    start = "start-without-rope" if "without-rope" in recipe.model.name else "start"
    recipe = FlowRecipe.model_validate(recipe.model_dump() | {"output": work / name, "model": work / start})
    start_model(recipe.model, rope=start == "start")
    torch.manual_seed(recipe.seed)
    task = FlowTask(recipe, torch.device("cpu"), mouths)
    state = fit(task, recipe.optimisation, recipe.output)
    with state.averaging() as averaged:
        told = task.evaluate(averaged, state.step)
        weights = averaged["transformer"].state_dict()
    transformer: Any = task.modules["transformer"]
    transformer.load_state_dict(weights)
    return transformer.eval(), told


@torch.no_grad()
def animated(transformer: Any, mouths: Mouths, scale: float, editing: bool = False) -> tuple[Tensor, Tensor]:
    """Grey pixels [B, F, H, W] that the held-out voices make of the first frames (or of frames without a mouth), and
    the true ones through the same transform."""
    made, true = [], []
    scheduler = FlowMatchEulerDiscreteScheduler()
    set_timesteps(scheduler, STEPS, "cpu")
    number = 0
    while (batch := mouths.held_out(number)) is not None:
        conditions = batch.conditions
        if editing:
            assert batch.editing_BCTHW is not None and batch.editing_known_B4THW is not None
            conditions = replace(conditions, reference_BCTHW=batch.editing_BCTHW, known_B4THW=batch.editing_known_B4THW)
        positions = {name: getattr(conditions, name)[0] for name in ("video_positions_T", "audio_positions_A")}
        noise = torch.randn(batch.clean_BCTHW.shape, generator=torch.Generator().manual_seed(number))
        latents = sample(
            Batched(TransformerVelocity(transformer)), scheduler, noise, replace(conditions, **positions),
            Guidance(audio_scale=Scale("constant", scale, scale)), Windows(LATENTS, 2),
        )  # fmt: skip
        known = conditions.known_B4THW[:, :1].bool()
        made.append(mouths.decode(torch.where(known, batch.clean_BCTHW, latents)))
        true.append(mouths.decode(batch.clean_BCTHW))
        number += 1
    return torch.cat(made), torch.cat(true)


@torch.no_grad()
def synchrony(grey_BFHW: Tensor, mouths: Mouths, expert: SyncNet) -> Clips:
    """Sync-C and Sync-D of the held-out clips, and whether their offset is found within one frame of 0.

    What the expert sees beside the mouth is the first frame.
    """
    found = []
    for grey_FHW, clip in zip(255 * grey_BFHW, mouths.test, strict=True):
        still_HW = torch.from_numpy(clip.pictures[0].astype("float32")).mean(-1)
        picture_FHW = still_HW.expand(FRAMES, -1, -1).clone()
        picture_FHW[(slice(None), *PATCH)] = grey_FHW
        lips = expert.embed_pictures(picture_FHW.expand(1, 3, -1, -1, -1))[0]
        sound = expert.embed_audio(torch.from_numpy(clip.coefficients[None, :, : 4 * FRAMES]))[0]
        found.append(expert.compare(lips, sound, shifts=10))
    return {
        "sync_c": [float(sync.confidence) for sync in found],
        "sync_d": [float(sync.distance) for sync in found],
        "offset": [float(abs(sync.offset) <= 1) for sync in found],
    }


def mouth_error(made_BFHW: Tensor, true_BFHW: Tensor, mouths: Mouths) -> Clips:
    """PSNR on the lips of every clip, dB."""
    error = ((made_BFHW - true_BFHW).square() * mouths.lips_HW).sum((2, 3)).mean(1) / mouths.lips_HW.sum()
    return {"lips": (-10 * error.clamp(min=1e-6).log10()).tolist()}


def trainings(mouths: Mouths, work: Path, expert: SyncNet, found: dict[str, Clips], keep: Callable) -> None:
    """Add to ``found`` every recipe's figures, the base's at each scale of audio guidance; ``keep`` after each."""
    for name in RECIPES:
        wanted = {f"{name}, audio guidance {scale:g}": scale for scale in (SCALES if name == "base" else (3.0,))}
        if wanted.keys() <= found.keys():
            continue
        transformer, told = trained(name, mouths, work)
        measured = {
            "gap": told["held_out/lips/other_voice"] - told["held_out/lips/own_voice"],
            "eq1": told["held_out/image"],
        }
        for title, scale in wanted.items():
            pixels, true = animated(transformer, mouths, scale)
            found[title] = synchrony(pixels, mouths, expert) | mouth_error(pixels, true, mouths)
            found[title] |= {metric: [value] for metric, value in measured.items()}
        if name in ("base", "image-only"):
            pixels, true = animated(transformer, mouths, 3.0, editing=True)
            found[f"{name}, video editing"] = synchrony(pixels, mouths, expert) | mouth_error(pixels, true, mouths)
            still = true[:, :1].expand_as(true)
            found["true video"] = synchrony(true, mouths, expert)
            found["still picture"] = synchrony(still, mouths, expert) | mouth_error(still, true, mouths)
        keep()


def tiny_guidance(model: Path, cases: int, expert: SyncNet) -> dict[str, Clips]:
    """weights/tiny on held-out drawn people and voices at each scale of audio guidance, heads still."""
    pipe = SkyReelsAudioPipeline.from_pretrained(str(model))
    pipe.set_progress_bar_config(disable=True)
    settings = pipe.settings()
    renderer, jaw = Renderer((settings.height, settings.width)), list(CURVES).index("jaw")
    told: dict[str, list[tuple[float, ...]]] = {}
    for number in range(cases):
        subject, _ = drawn("test", number, "realistic")
        image, landmarks = portrait(renderer, subject)
        said = voice(number, TINY_FRAMES / 25)
        true, curves = true_video(renderer, subject, speaking_motion(said, number))
        videos = {"true video": true.frames}
        for scale in (*SCALES, settings.audio_guidance_scale):
            generator = torch.Generator().manual_seed(number)
            made = pipe(image, said.waveform, "", generator=generator, motion=0.0, audio_guidance_scale=scale)
            videos[f"audio guidance {scale}"] = np.stack(list(made.frames))
        for title, frames in videos.items():
            crops = face_crops(frames, np.tile(faces.face_box(landmarks), (len(frames), 1)))
            sync = expert.offset_and_confidence(crops, said.waveform)
            read = lip_curves(frames, landmarks)[:, jaw]
            count = min(len(read), len(curves))
            r, size = correlation(read[:count], curves[:count, jaw]), read.std() / curves[:, jaw].std()
            told.setdefault(title, []).append((sync.confidence, sync.distance, abs(sync.offset) <= 1, r, size))
        print(number, {title: np.round(rows[-1], 2).tolist() for title, rows in told.items()}, flush=True)
    names = ("sync_c", "sync_d", "offset", "jaw_r", "amplitude")
    return {
        title: {name: [float(row[column]) for row in rows] for column, name in enumerate(names)}
        for title, rows in told.items()
    }


def denoising(model: Path) -> dict[str, float]:
    """Seconds of the loop for the example's voice in 50 steps at audio guidance 4.5, as in the paper's Table 4."""
    seconds = {}
    for processes in (1, 2):
        for cache in ("none", "teacache"):
            with tempfile.TemporaryDirectory() as folder:
                how = [sys.executable, "-m", "skyreels_audio"]
                if processes > 1:
                    how = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *how[1:]]
                how += ["generate", "--model", str(model), "--steps", "50", "--audio-guidance", "4.5", "--report"]
                how += ["--cache", cache, "-o", f"{folder}/video.mp4"]
                how += ["--parallel", f"ulysses={processes}"] if processes > 1 else []
                environment = os.environ | {"OMP_NUM_THREADS": "1"}
                subprocess.run(how, check=True, env=environment, stdout=subprocess.DEVNULL)
                told = json.loads(next(Path(folder).glob("*.json")).read_text())
            seconds[f"{cache} {processes}"] = told["seconds"]["sample"]
            print("denoising", seconds, flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--mouths", type=Path, default=ROOT / "recipes" / "syncnet.yaml", help="a recipe of the task sync"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs" / "ablations", help="where an interrupted run goes on"
    )
    parser.add_argument("--cases", type=int, default=8, help="people on which weights/tiny is measured")
    parser.add_argument("--only", choices=("guidance", "trainings", "caches"))
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "ablations.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    remembered = options.work / "figures.json"
    figures = json.loads(remembered.read_text()) if remembered.exists() else {}

    def wanted(part: str) -> bool:
        return options.only in (None, part) and part not in figures.get("done", [])

    def keep(part: str | None = None) -> None:
        figures["done"] = figures.get("done", []) + ([part] if part else [])
        remembered.write_text(json.dumps(_rounded(figures)) + "\n")

    if wanted("guidance"):
        figures["tiny"] = tiny_guidance(bundled("weights/tiny"), options.cases, load_sync_expert())
        keep("guidance")
    if wanted("trainings"):
        sync = SyncTask(read_recipe(options.mouths), torch.device("cpu"))  # pyright: ignore[reportArgumentType]
        mouths = Mouths(sync.train, sync.held_out)
        base: Any = read_recipe(ROOT / "recipes" / "ablations" / "base.yaml").optimisation
        figures["data"] = {"train": len(mouths.train), "test": len(mouths.test)}
        figures["data"] |= {"steps": base.steps, "batch": base.batch}
        trainings(mouths, options.work, load_sync_expert(), figures.setdefault("trained", {}), keep)
        model: Any = SkyReelsAudioTransformer3DModel.from_pretrained(options.work / "start" / "transformer")
        figures["data"]["weights"] = model.num_parameters()
        keep("trainings")
    if wanted("caches"):
        figures["denoising"] = denoising(bundled("weights/tiny"))
        keep("caches")
    options.output.write_text(remembered.read_text())
    options.output.with_suffix(".md").write_text(report(figures, ROOT / "docs" / "results" / "fusion.json"))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
