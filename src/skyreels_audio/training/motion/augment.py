"""Other cameras, lights and codecs for pairs of frames: what changes a picture but not how its face moves."""

from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from skyreels_audio.models.inner_mouth import (
    draw_inside,
    face_light,
    light_on_teeth,
    opening,
    unknown_teeth,
)


@dataclass(frozen=True)
class Batch:
    """Pairs of frames (-1 to 1), codes, and what the rig knows.

    Flow (pixels), what the source shows, how much of a target's pixel shows the inside of a mouth, where a pixel is in
    the skull and the gap between teeth (``models.inner_mouth``), where the source (``bared``), and both (``own``), show
    upper teeth, and the source's light.
    """

    source_B3HW: Tensor
    target_B3HW: Tensor
    codes_BN: Tensor
    flow_B2HW: Tensor
    visible_B1HW: Tensor
    inside_B1HW: Tensor
    place_B2HW: Tensor
    gap_B111: Tensor
    own_B1HW: Tensor
    bared_B1HW: Tensor
    light_B7: Tensor

    @property
    def unseen_B1HW(self) -> Tensor:
        """Share of a target's pixel that the source does not show, where lips end only as much as is no lip."""
        within = (self.inside_B1HW >= 0.5).float()
        hidden = torch.lerp(torch.ones_like(within), self.inside_B1HW, within)
        return torch.lerp(hidden, (1 - within) * self.inside_B1HW, self.visible_B1HW)

    def rows(self, rows: slice) -> "Batch":
        """A band of the pictures. What comes from outside of it is not visible."""
        cut = {f.name: getattr(self, f.name)[..., rows, :] for f in fields(self) if f.name.endswith("HW")}
        height = cut["flow_B2HW"].shape[-2]
        y = torch.arange(height)[:, None] + 0.5 + cut["flow_B2HW"][:, 1:]
        inside = (y > -2) & (y < height + 2)
        return replace(self, **{**cut, "visible_B1HW": cut["visible_B1HW"] * inside})

    def to(self, device: torch.device) -> "Batch":
        return Batch(
            *(
                x.to(device, memory_format=torch.channels_last) if x.ndim == 4 else x.to(device)
                for x in (getattr(self, f.name) for f in fields(self))
            )
        )


def augment(batch: Batch, generator: torch.Generator, teeth_4RS: Tensor) -> Batch:
    """Mirrored, in other colours, blurred, grey, grainy, and with things before the face that do not move.

    The inside of a mouth that the source does not show is drawn in its new light, as the model does.
    """
    count = len(batch.codes_BN)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    def chance(probability: float) -> Tensor:
        return (torch.rand(count, 1, 1, 1, generator=generator) < probability).float()

    batch = _occlude(batch, generator)
    if torch.rand((), generator=generator) < 0.5:
        batch = _mirror(batch)
    gain, gamma, shift = uniform(0.7, 1.2, 3, 1, 1), uniform(0.7, 1.5, 1, 1, 1), uniform(-0.06, 0.06, 3, 1, 1)
    gain = 0.5 * gain + 0.5 * gain.mean(1, keepdim=True)
    changed, grey, soft = chance(0.7), chance(0.06), chance(0.25)
    side = _side_light(batch.source_B3HW, uniform(-0.6, 0.6, 1, 1, 1) * chance(0.3))
    grain = 0.04 * uniform(0, 1, 1, 1, 1) * chance(0.3)

    def look(picture: Tensor) -> Tensor:
        x = ((picture + 1) / 2).clamp(0, 1)
        x = (x.pow(gamma) * gain + shift) * changed + x * (1 - changed)
        x = (x * side).clamp(0, 1)
        x = grey * x.mean(1, keepdim=True) + (1 - grey) * x
        x = soft * F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1) + (1 - soft) * x
        return 2 * x - 1

    noise = torch.randn(batch.source_B3HW.shape, generator=generator)
    source, target = look(batch.source_B3HW), look(batch.target_B3HW)
    light_B7 = face_light(source)
    drawn = draw_inside(
        batch.place_B2HW,
        batch.gap_B111.expand_as(batch.inside_B1HW),
        opening(batch.inside_B1HW),
        light_on_teeth(light_B7, source, batch.bared_B1HW),
        teeth_4RS,
        unknown_teeth(batch.bared_B1HW),
    )
    unseen = torch.minimum(batch.inside_B1HW, batch.unseen_B1HW) * (1 - batch.own_B1HW)
    target = target + unseen * (drawn - target)
    return replace(batch, source_B3HW=source + grain * noise, target_B3HW=target, light_B7=light_B7)


def _mirror(batch: Batch) -> Batch:
    turned = {f.name: getattr(batch, f.name).flip(-1) for f in fields(batch) if f.name.endswith("HW")}
    across = torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1)
    return replace(batch, **turned | {name: across * turned[name] for name in ("flow_B2HW", "place_B2HW")})


def _side_light(picture: Tensor, strength_B111: Tensor) -> Tensor:
    across = torch.linspace(-1, 1, picture.shape[-1]).view(1, 1, 1, -1)
    return 1 + strength_B111 * across


def _occlude(batch: Batch, generator: torch.Generator) -> Batch:
    """In one picture of ten a blot with the pixels of another stands before the face, at one place in both frames."""
    source, target, flow, visible = batch.source_B3HW, batch.target_B3HW, batch.flow_B2HW, batch.visible_B1HW
    count, _, height, width = source.shape
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    centre, radius = torch.rand(count, 2, 1, 1, generator=generator), torch.rand(count, 2, 1, 1, generator=generator)
    radius = 0.05 + 0.2 * radius
    present = torch.rand(count, 1, 1, 1, generator=generator) < 0.1
    away = ((x - centre[:, :1]) / radius[:, :1]).square() + ((y - centre[:, 1:]) / radius[:, 1:]).square()
    blot = present & (away < 1)
    other = source.roll(1, 0).flip(-2)
    column = (torch.arange(width) + flow[:, :1]).round().long().clamp(0, width - 1)
    row = (torch.arange(height)[:, None] + flow[:, 1:]).round().long().clamp(0, height - 1)
    covered = blot.flatten(2).gather(2, (row * width + column).flatten(2)).view_as(blot)
    visible = torch.where(blot, torch.ones_like(visible), visible * ~covered)
    return replace(
        batch,
        source_B3HW=torch.where(blot, other, source),
        target_B3HW=torch.where(blot, other, target),
        flow_B2HW=flow * ~blot,
        visible_B1HW=visible,
        **{name: getattr(batch, name) * ~blot for name in ("inside_B1HW", "own_B1HW", "bared_B1HW")},
    )
