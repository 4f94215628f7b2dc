"""Training of the motion autoencoder's decoder on pairs of frames with exact flow (``synthetic.pairs``)."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from skyreels_audio.media import InputError
from skyreels_audio.models.inner_mouth import coarse, face_light
from skyreels_audio.models.motion_autoencoder import Motion, MotionAutoencoder, warp
from skyreels_audio.synthetic.teeth import places, usual_teeth
from skyreels_audio.training.motion.augment import Batch, augment
from skyreels_audio.training.motion.recipe import MotionRecipe

REFRESH_EVERY = 200  # steps between looks at the growing folder of clips
FEATURES = 5.0  # weight of the discriminator's features, which are small: its layers have norm 1
HELD_OUT_PAIRS = 96
NEAR = 1.3, 0.5  # half sizes of teeth beyond them, across and down, up to which the loss asks where they stand
MOUTH_BOX = 56, 140, 20, 108  # of the face's box: top, bottom, left, right; what figures are measured in


class PairFolder:
    """Clips of pairs on disk, one file each; the folder may grow while it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refresh()

    def refresh(self) -> None:
        self.paths = sorted(path for path in self.folder.glob("*.npz") if ".partial" not in path.name)

    def pair(self, clip: int, pair: int) -> tuple[np.ndarray, ...]:
        """What a ``Batch`` has of one pair, pictures as uint8 [H, W, …]."""
        with np.load(self.paths[clip]) as data:
            pair %= len(data["codes_PN"])
            frames, source, target = data["frames_THWC"], data["sources_P"][pair], data["targets_P"][pair]
            own, bared = data["teeth_THW"][target, ..., None], data["teeth_THW"][source, ..., None]
            return (
                frames[source],
                frames[target],
                data["codes_PN"][pair],
                data["flow_PHW2"][pair].astype(np.float32) / 64,
                data["visible_PHW"][pair, ..., None],
                data["inside_THW"][target, ..., None],
                np.stack(places(frames.shape[1:3], data["place_32"]), -1),
                data["gap_T"][target].reshape(1, 1, 1),
                own & bared,
                bared,
            )

    def batch(self, picks: list[tuple[int, int]]) -> Batch:
        source, target, codes, flow, visible, inside, place, gap, own, bared = map(
            np.stack, zip(*(self.pair(*pick) for pick in picks), strict=True)
        )
        pixels = lambda x: torch.from_numpy(x).permute(0, 3, 1, 2).float()  # noqa: E731
        return Batch(
            source_B3HW=(source_B3HW := pixels(source) / 127.5 - 1),
            target_B3HW=pixels(target) / 127.5 - 1,
            codes_BN=torch.from_numpy(codes),
            flow_B2HW=pixels(flow),
            visible_B1HW=pixels(visible),
            inside_B1HW=pixels(inside),
            place_B2HW=pixels(place),
            gap_B111=torch.from_numpy(gap),
            own_B1HW=pixels(own),
            bared_B1HW=pixels(bared),
            light_B7=face_light(source_B3HW),
        )

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        clips = torch.randint(len(self.paths), (count,), generator=generator).tolist()
        pairs = torch.randint(1 << 16, (count,), generator=generator).tolist()
        return self.batch(list(zip(clips, pairs, strict=True)))


class PatchDiscriminator(nn.Module):
    """Which patches of a mouth are real: logits and features at three scales (pix2pix; Isola et al., 2017)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = (6, width, 2 * width, 4 * width)
        self.layers = nn.ModuleList(spectral_norm(nn.Conv2d(i, o, 4, stride=2, padding=1)) for i, o in pairwise(widths))
        self.head = spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, picture_B3HW: Tensor, source_B3HW: Tensor) -> list[Tensor]:
        h, features = torch.cat([picture_B3HW, source_B3HW], 1), []
        for layer in self.layers:
            h = F.leaky_relu(layer(h), 0.2)
            features.append(h)
        return [*features, self.head(h)]


class MotionTask:
    """Flow where the source shows it, paint where it does not, and the pixels of both."""

    def __init__(self, recipe: MotionRecipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.clips, held_out = PairFolder(recipe.pairs / "train"), PairFolder(recipe.pairs / "test")
        count = len(held_out.paths)
        if not count or not self.clips.paths:
            raise InputError(f"{recipe.pairs} holds no clips: make them with skyreels-audio render RECIPE.")
        self.held_out = held_out.batch([(i % count, 3 * i) for i in range(HELD_OUT_PAIRS)])
        vae = MotionAutoencoder(**recipe.model)
        if recipe.initial is not None:
            vae.load_state_dict(MotionAutoencoder.from_pretrained(recipe.initial).state_dict())
        vae.teeth_4RS.copy_(torch.from_numpy(usual_teeth()))
        self.teeth_4RS = coarse(vae.teeth_4RS)
        vae.to(device=device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.modules = nn.ModuleDict({"vae": vae, "discriminator": PatchDiscriminator()}).to(device)
        self.rows = {"mouth": slice(*vae.config.mouth), "eyes": slice(*vae.config.eyes), "face": slice(None)}

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        if step % REFRESH_EVERY == 0:
            self.clips.refresh()
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        batch = augment(self.clips.draw(self.recipe.optimisation.batch, generator), generator, self.teeth_4RS)
        part = ("mouth", "mouth", "eyes", "face")[step % 4]
        batch = batch.rows(self.rows[part]).to(self.device)
        vae: Any = self.modules["vae"]
        motion = vae.move(batch.codes_BN, vae.read_source(batch.source_B3HW, self.rows[part]))
        losses = motion_losses(motion, batch, self.teeth_4RS.to(self.device))
        if step >= self.recipe.adversarial_from and part != "eyes":
            losses |= self.adversarial_losses(motion, batch, self.rows[part].start or 0)
        return torch.stack(list(losses.values())).sum(), {k: float(v.detach()) for k, v in losses.items()}

    def adversarial_losses(self, motion: Motion, batch: Batch, first_row: int) -> dict[str, Tensor]:
        """Hinge losses on the mouth: both sides in one step, since neither's gradient reaches the other's weights."""
        top, bottom, left, right = MOUTH_BOX
        box = (..., slice(top - first_row, bottom - first_row), slice(left, right))
        discriminator: Any = self.modules["discriminator"]
        source, true = batch.source_B3HW[box], batch.target_B3HW[box]
        made = motion.apply(batch.source_B3HW, batch.light_B7, self.teeth_4RS.to(self.device))[box]
        real, fake = discriminator(true, source), discriminator(made.detach(), source)
        learning = F.relu(1 - real[-1]).mean() + F.relu(1 + fake[-1]).mean()
        frozen = {name: value.detach() for name, value in discriminator.named_parameters()}
        judged = torch.func.functional_call(discriminator, frozen, (made, source))
        matching = torch.stack([(a - b.detach()).abs().mean() for a, b in zip(judged[:-1], real[:-1], strict=True)])
        weight = self.recipe.adversarial_weight
        return {
            "discriminator": learning,
            "adversarial": -weight * judged[-1].mean(),
            "features": FEATURES * matching.sum(),
        }

    @torch.no_grad()
    def evaluate(self, averaged: nn.ModuleDict, step: int) -> dict[str, float]:
        """PSNR of the held-out mouths, moved and painted, beside that of the source repeated."""
        vae: Any = averaged["vae"]
        held_out, teeth_4RS, parts = self.held_out, self.teeth_4RS, []
        for at in torch.arange(len(held_out.codes_BN)).split(16):
            source, light_B7 = held_out.source_B3HW[at], held_out.light_B7[at]
            motion = vae.move(held_out.codes_BN[at], vae.read_source(source))
            parts.append(motion.apply(source, light_B7, teeth_4RS).clamp(-1, 1))
        made, true, still = torch.cat(parts), self.held_out.target_B3HW, self.held_out.source_B3HW
        top, bottom, left, right = MOUTH_BOX
        box = (..., slice(top, bottom), slice(left, right))
        eyes = (..., slice(0, 48), slice(None))
        return {
            "held_out/mouth_psnr": psnr(made[box], true[box]),
            "held_out/mouth_still": psnr(still[box], true[box]),
            "held_out/eyes_psnr": psnr(made[eyes], true[eyes]),
            "held_out/eyes_still": psnr(still[eyes], true[eyes]),
            "held_out/sharpness": sharpness(made[box]) / sharpness(true[box]),
        }

    def export(self, averaged: nn.ModuleDict, folder: Path) -> None:
        """Weights are rounded to bfloat16, in which the decoder runs: files of float16 that pack to a quarter less."""
        vae: Any = averaged["vae"]
        vae.bfloat16().half().save_pretrained(folder)


def motion_losses(motion: Motion, batch: Batch, teeth_4RS: Tensor) -> dict[str, Tensor]:
    """Each a mean over the batch; what moves or is hidden weighs more than what stays."""
    moving = (batch.target_B3HW - batch.source_B3HW).abs().mean(1, keepdim=True)
    weight = 1 + 4 * F.avg_pool2d((moving > 0.06).float(), 9, 1, 4) + 3 * (1 - batch.visible_B1HW)
    weight = weight / weight.mean()
    # Where skull and jaw are is supervised; pixels, of which each likes another tooth, do not move them.
    seated = replace(motion, place_B2HW=motion.place_B2HW.detach(), gap_B1HW=motion.gap_B1HW.detach())
    made = seated.apply(batch.source_B3HW, batch.light_B7, teeth_4RS)
    flow_error = (motion.flow_B2HW - batch.flow_B2HW).abs().mean(1, keepdim=True).clamp(max=20)
    unseen = batch.unseen_B1HW
    error = made - batch.target_B3HW
    drawn = torch.maximum(unseen, warp(motion.bared_B1HW, motion.flow_B2HW).detach())
    painted = drawn * (1 - batch.inside_B1HW) * (motion.colour_B3HW - batch.target_B3HW).abs()
    across, down = batch.place_B2HW[:, :1].abs(), batch.place_B2HW[:, 1:]
    near = ((across < NEAR[0]) & (down > -NEAR[1]) & (down < batch.gap_B111 + 2 + NEAR[1])).float()
    misplaced = near * (motion.place_B2HW - batch.place_B2HW).abs().sum(1, keepdim=True).clamp(max=4)
    wrong_gap = near * (motion.gap_B1HW - batch.gap_B111).abs().clamp(max=4)
    return {
        "pixels": 2 * (weight * (error.abs() + error.square())).mean(),
        "edges": 2 * torch.stack([(weight[..., :-1, :-1] * d.abs()).mean() for d in differences(error)]).sum(),
        "flow": 0.4 * (weight * batch.visible_B1HW * (1 - batch.own_B1HW) * flow_error).mean(),
        "hidden": 0.3 * (weight * wrong_share(motion.painted_B1HW, unseen)).mean(),
        "painted": 2 * painted.mean(),
        "inside": 0.6 * (weight * wrong_share(motion.inside_B1HW, batch.inside_B1HW)).mean(),
        "place": 4 * misplaced.mean(),
        "gap": 4 * wrong_gap.mean(),
        "bared": 0.5 * (weight * wrong_share(motion.bared_B1HW, batch.bared_B1HW)).mean(),
    }


def wrong_share(share: Tensor, true: Tensor) -> Tensor:
    """Cross entropy of shares of 0 to 1."""
    return F.binary_cross_entropy(share.clamp(1e-4, 1 - 1e-4), true, reduction="none")


def differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """To the right and to the lower neighbour, of the size that both have."""
    return x[..., :-1, 1:] - x[..., :-1, :-1], x[..., 1:, :-1] - x[..., :-1, :-1]


def psnr(made: Tensor, true: Tensor) -> float:
    """Mean over pictures of values in [-1, 1], dB."""
    return float((10 * torch.log10(4 / (made - true).square().mean((1, 2, 3)).clamp(min=1e-6))).mean())


def sharpness(pictures_B3HW: Tensor) -> float:
    """Mean variance of the Laplacian of the brightness."""
    grey = pictures_B3HW.mean(1, keepdim=True)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return float(F.conv2d(grey, kernel).var((1, 2, 3)).mean())
