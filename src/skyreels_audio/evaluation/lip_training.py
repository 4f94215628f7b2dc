"""How `assets/lips.safetensors` was made: rendered mouths, disturbed as codecs disturb them, and their true curves.

    python -m skyreels_audio.evaluation.lip_training --speech BANK --photographs FOLDER

Everybody seen here has a seed of training; the ceiling is measured on people, photographs and speech of the test split.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skyreels_audio.evaluation.lips import LipRegressor, crop, mouth_box, true_curves

SIZE = 256
BLOCK = 16  # pixels of the blocks that autoencoders of the family see
POSES = 16  # frames of one person
PHOTOGRAPH_EVERY = 4  # people


def train(
    speech: Path, photographs: Path | None, output: Path, people: int = 400, steps: int = 2000, seed: int = 0
) -> LipRegressor:
    """Render, train, save (fp16 safetensors): about a quarter of an hour on one core.

    The crops are kept in a folder beside the output, where an interrupted run goes on.
    """
    from safetensors.torch import save_file
    from tqdm import tqdm

    folder = output.with_suffix(".crops")
    folder.mkdir(parents=True, exist_ok=True)
    sampler = None
    for person in tqdm(range(people), desc="mouths"):
        path = folder / f"{person:04d}.npz"
        if not path.exists():
            sampler = sampler or CropSampler(speech, photographs)
            crops, curves = sampler.example(person, np.random.default_rng([seed, person]))
            with (partial := path.with_suffix(".partial")).open("wb") as file:
                np.savez(file, crops=crops, curves=curves)
            partial.rename(path)
    parts = [np.load(folder / f"{person:04d}.npz") for person in range(people)]
    crops, curves = (np.concatenate([part[name] for part in parts]) for name in ("crops", "curves"))
    model = fit(crops, curves, steps, seed)
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, output)
    return model


class CropSampler:
    """Renders mouths of people of the training split."""

    def __init__(self, speech: Path, photographs: Path | None) -> None:
        from skyreels_audio.synthetic.bank import SpeechBank
        from skyreels_audio.synthetic.render import Renderer

        self.bank, self.photographs, self.renderer = SpeechBank(speech, "train"), photographs, Renderer(SIZE)

    def example(self, person: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Crops of POSES frames, clean and then coded [2·POSES, S, S, 3], and their curves [2·POSES, C]."""
        from skyreels_audio.evaluation.subjects import drawn, photographed
        from skyreels_audio.synthetic.motion import Motion, animate, sample_manner
        from skyreels_audio.synthetic.visemes import loudness

        if self.photographs is not None and person % PHOTOGRAPH_EVERY == 0:
            subject, _ = next(photographed(self.photographs, "train", rng))
        else:
            subject, _ = drawn("train", person)
        utterance, visemes = self.bank[int(rng.integers(len(self.bank)))]
        motion = animate(visemes, loudness(utterance.waveform), rng, sample_manner(rng))
        chosen = rng.choice(len(motion), POSES, replace=False)
        weights_TK, rotation_T3 = motion.weights_TK[chosen], motion.rotation_T3[chosen]
        motion = Motion(weights_TK, rotation_T3, motion.translation_T3[chosen], motion.gaze_T2[chosen])
        rendered = self.renderer.render(subject, motion)
        box = mouth_box(rendered.landmarks_T682[0])
        frames = np.concatenate([rendered.frames, coded(rendered.frames, rng)])
        curves = true_curves(motion.weights_TK)
        return crop(frames, box), np.concatenate([curves, curves])


def coded(frames_FHWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames of which each block of 16 × 16 pixels kept only its lowest frequencies, on a grid that lies anywhere."""
    from scipy.fft import dctn, idctn

    keep, (top, left) = rng.uniform(3, 10), rng.integers(0, BLOCK, 2)
    shifted = np.roll(frames_FHWC, (-top, -left), (1, 2)).astype(np.float32)
    count, height, width, _ = shifted.shape
    blocks = shifted.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK, 3)
    spectrum = np.asarray(dctn(blocks, axes=(2, 4), norm="ortho"))
    frequency = np.add.outer(np.arange(BLOCK), np.arange(BLOCK))
    spectrum *= (frequency < keep)[:, None, :, None]
    wrong = np.where(frequency == 0, 0.01, 0.15)[:, None, :, None].astype(np.float32)
    spectrum *= 1 + wrong * rng.normal(size=spectrum.shape).astype(np.float32)  # errors of latents show as blocks
    back = np.asarray(idctn(spectrum, axes=(2, 4), norm="ortho")).reshape(frames_FHWC.shape)
    return np.roll(back, (top, left), (1, 2)).round().clip(0, 255).astype(np.uint8)


def fit(crops_NHWC: np.ndarray, curves_NC: np.ndarray, steps: int, seed: int, batch: int = 64) -> LipRegressor:
    """AdamW on the Huber loss of curves scaled to unit variance."""
    torch.manual_seed(seed)
    model = LipRegressor()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.05)
    curves = torch.from_numpy(curves_NC).float()
    scale = curves.std(0)
    for step in range(steps):
        rows = torch.randint(len(curves), (batch,))
        crops = torch.from_numpy(crops_NHWC[rows.numpy()]).permute(0, 3, 1, 2).float()
        loss = F.smooth_l1_loss(model(disturb(crops)) / scale, curves[rows] / scale, beta=0.3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.3f}", flush=True)
    return model.eval()


def disturb(crops_NCHW: Tensor) -> Tensor:
    """Mirror, shift, scale, blur, light, noise: each anew for a batch or for a picture of it."""
    count, size = len(crops_NCHW), crops_NCHW.shape[-1]
    angle, zoom = 0.12 * torch.randn(count), 1 + 0.07 * torch.randn(count)
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    rows = [
        torch.stack([mirror * zoom * angle.cos(), -angle.sin() * zoom, 0.08 * torch.randn(count)], -1),
        torch.stack([mirror * angle.sin() * zoom, zoom * angle.cos(), 0.08 * torch.randn(count)], -1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [count, 3, size, size], align_corners=False)
    x = F.grid_sample(crops_NCHW, grid, padding_mode="border", align_corners=False)
    if (factor := (1, 1, 2, 4)[int(torch.randint(4, ()))]) > 1:  # detail that an autoencoder or a sampler lost
        x = F.interpolate(F.avg_pool2d(x, factor), size=(size, size), mode="bilinear")
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * torch.rand(count, 1, 1, 1) * 1.4
    x = x * (1 + 0.25 * torch.randn(count, 1, 1, 1)) + 15 * torch.randn(count, 3, 1, 1)
    return (x + 6 * torch.rand(count, 1, 1, 1) * torch.randn_like(x)).clamp(0, 255)


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, required=True, help="speech bank (synthetic/bank.py)")
    parser.add_argument("--photographs", type=Path, help="folder of portraits")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "assets" / "lips.safetensors")
    parser.add_argument("--people", type=int, default=400)
    parser.add_argument("--steps", type=int, default=2000)
    train(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
