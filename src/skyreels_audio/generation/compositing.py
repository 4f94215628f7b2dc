"""Codes of motion → frames: the decoder's flow, applied to the picture itself at its own resolution.

The decoder works on the face's box in an aligned crop of 256 × 256. Its flow and mask are smooth, so they are brought
to the picture's pixels, which move without being drawn again. The inside of a mouth is drawn there too, its edges as
sharp as the picture; only what else is painted has the decoder's own resolution.

Shape letters: B frame of a batch, N channel of a code, M part of a motion, H W pixels of the face's box,
h w pixels of the picture.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skyreels_audio.faces import lip_aperture
from skyreels_audio.faces.framing import MOUTH_CENTRE
from skyreels_audio.faces.warp import invert, warp
from skyreels_audio.generation.codes import (
    BARED,
    BLINK,
    HEAD,
    KEEP_EYES,
    KEEP_MOUTH,
    MEETING,
    PRESSING,
    SILENT,
    at_most,
    close,
    keep_smile,
    lips_met,
    part_pursed,
    part_surely,
    parted,
    wider,
)
from skyreels_audio.generation.corners import UPPER, round_corners
from skyreels_audio.generation.eyes import EYES, Eye, Gaze, move_eyes
from skyreels_audio.generation.face_decoder import (
    FIXED,
    INSIDE,
    OPEN,
    SHARE,
    STRENGTH,
    TEETH,
    UNKNOWN,
    FaceDecoder,
)
from skyreels_audio.generation.grain import Grain
from skyreels_audio.generation.grin import Grin, without_teeth
from skyreels_audio.generation.head import Head
from skyreels_audio.generation.lips import Lips
from skyreels_audio.models import motion_autoencoder
from skyreels_audio.models.inner_mouth import (
    COARSE,
    coarse,
    light_on_teeth,
    smoothstep,
    unknown_teeth,
)
from skyreels_audio.models.motion_autoencoder import MOUTH_CHANNELS, Paint

BATCH = 8  # frames that are decoded at once
PAINT = 3, 1, 2, 1, 1, 1, 1  # channels of what a `Paint` has
EVERYWHERE = [0, 1, SHARE, STRENGTH, INSIDE, OPEN]  # parts of a motion that every pixel needs: flow, and these
LIPS, SHADED = (0.12, 0.55), (0.14, 0.2, 0.19)  # openness near lips that part, and what their edges lose by it, of 1
CHIN, CHIN_SIZE = MOUTH_CENTRE + np.array([0.0, 0.105]), np.array([15.0, 8.0])  # in the crop, and each way, its pixels
EVEN = 4.0  # crop pixels over which skin is even but for its grain
SOFT = 1.2  # pixels of a picture that an edge of teeth is wide
OPAQUE, LARGE = 0.9, 1.8  # of what is painted; picture pixels per crop pixel from which on its edges are steeper
GAPING = 1.6  # times sooner than round corners end, with lips further apart, all between a grin's lips is painted
SURE = 3.0  # the same of teeth that a picture bares: half a tooth over half a lip is a ghost
RED = 0.22, 0.36  # how far green is below red, over it, from which on what was taken for teeth is a lip
REACH = 32  # crop pixels beyond the changed region that its pixels may come from
SOME = 0.004  # share of a pixel from which on anything is drawn
STILL, UNMOVED = 0.01, 0.02  # below this eyes are left as they are, and, in pixels, all else
FOLLOWS, UNSEEN = 0.09, 0.002  # radians of the head's turn from which on eyes go with it, and that nobody sees


@dataclass(frozen=True, eq=False)
class Aligned:
    """A picture and its face, aligned: ``place`` maps pixels of the crop of ``size`` (H, W) to pixels of the picture.

    ``aperture``: how far its lips are apart, over the face's height. ``landmarks``: of the mesh [478, 3], in pixels of
    the picture; without them its eyes do not shut, nor lips that are apart.
    """

    picture_hw3: np.ndarray
    place: np.ndarray
    size: tuple[int, int]
    aperture: float = 0.0
    landmarks: np.ndarray | None = None

    @cached_property
    def crop_HW3(self) -> np.ndarray:
        return self.crop(self.picture_hw3)

    def crop(self, picture_hw3: np.ndarray) -> np.ndarray:
        """The crop of this or another picture of the face, uint8 [H, W, 3]."""
        return warp(picture_hw3, self.place, self.size)


@dataclass(frozen=True, eq=False)
class Shown:
    """What is moved: all uint8, of the picture's size.

    Attributes:
        picture: [h, w, 3].
        toothless, enamel: the same with lips for its teeth, and with no lip in its teeth's edges.
        teeth, between: how far pixels are teeth, and between lips [h, w, 1]; None where that is not known.
    """

    picture: np.ndarray
    toothless: np.ndarray
    enamel: np.ndarray
    teeth: np.ndarray | None = None
    between: np.ndarray | None = None

    def closed(self, lips: Lips, share: float) -> "Shown":
        """With lips that went a share of the way together; the same object where that is none."""
        if share <= 0:
            return self
        picture = lips.closed(self.picture, share)
        if self.teeth is None or self.between is None:
            return Shown(picture, picture, picture)
        others = self.toothless, self.enamel, self.teeth, self.between
        return Shown(picture, *(lips.closed(a, share) for a in others))


class Compositor:
    """Applies motion to one picture; what of the pixels' geometry stays the same is computed once.

    ``eyes`` and ``head`` say what may move besides the mouth: without both only the mouth's part of the picture is
    touched, every other pixel is the source's own.
    """

    def __init__(self, aligned: Aligned, vae: Any, eyes: bool = True, head: bool = True) -> None:
        picture_hw3, face = aligned.picture_hw3, aligned.landmarks
        self.aperture = aligned.aperture
        self.crop = aligned.crop
        self.place, self.to_crop = aligned.place, invert(aligned.place)
        self.decoder = FaceDecoder(vae, aligned.crop_HW3, eyes)
        self.size = np.array(vae.config.size[::-1], np.float64)
        self.box = np.array(vae.config.box) * np.tile(self.size, 2)
        self.shown = Shown(picture_hw3, picture_hw3, picture_hw3)
        self.roundness = min(max(2 - 2 * aligned.aperture / BARED, 0.0), 1.0)
        self.lips = None
        if face is not None and lip_aperture(face) > SILENT:
            self.lips = Lips.of(face, picture_hw3.shape)
            if self.decoder.fixed[FIXED.index(TEETH)].amax() > 0.5:
                self._bare(Grin.of(picture_hw3, face, float(self.decoder.light_B7[0, :3].mean())))
        self.scale = float(np.sqrt(abs(np.linalg.det(self.place[:, :2]))))  # picture pixels per crop pixel
        self.sharp = max(self.scale / LARGE, 1.0) ** 0.5
        self.teeth_4RS = coarse(vae.teeth_4RS.float().cpu(), max(round(SOFT * COARSE / self.scale), 1))
        height, width = picture_hw3.shape[:2]
        corners = self._corners(*Head.REACH)
        if not head:
            top = vae.config.eyes[0] if eyes else vae.config.mouth[0]
            low = self.box[:2] + [0, top]
            corners = self._corners(low / self.size, self.box[2:] / self.size)
        low = np.clip(np.floor(corners.min(0)).astype(int), 0, [width - 1, height - 1])
        high = np.clip(np.ceil(corners.max(0)).astype(int) + 1, low + 1, [width, height])
        self.region = slice(low[1], high[1]), slice(low[0], high[0])
        y, x = (torch.arange(a, b) + 0.5 for a, b in zip(low[::-1], high[::-1], strict=True))
        self.here_hw2 = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
        self.crop_hw2 = _through(self.to_crop, self.here_hw2)
        reach = int(np.ceil(REACH * self.scale))
        self.origin = np.maximum(low - reach, 0)
        self.around = slice(self.origin[1], high[1] + reach), slice(self.origin[0], high[0] + reach)
        # Lips that a picture shows closed roll inward, into the shade, when they part; open ones show it already.
        self.shade = max(1 - aligned.aperture / BARED, 0.0) if head else 0.0
        self.eyes = [] if face is None or not eyes else [Eye.of(face, points, picture_hw3.shape) for points in EYES]
        self.gaze = Gaze()
        self.head = Head(self.crop_hw2, self.size) if head else None

    def _bare(self, grin: Grin) -> None:
        """All bared teeth are upper ones, also where they are longer than the decoder thinks, and no lip moves them."""
        picture = self.shown.picture
        toothless, enamel = picture.copy(), picture.copy()
        teeth, between = (np.zeros((*picture.shape[:2], 1), np.uint8) for _ in range(2))
        toothless[grin.part], enamel[grin.part] = grin.lips_hw3, grin.enamel_hw3
        teeth[grin.part] = (255 * grin.teeth_hw[..., None]).round()
        # What lips that are hardly apart show between them may as well be closed by the decoder.
        between[grin.part] = (255 * min(GAPING * (1 - self.roundness), 1.0) * grin.between_hw[..., None]).round()
        self.shown, self.decoder.toothless = Shown(picture, toothless, enamel, teeth, between), True
        left, top = self.box[:2].round().astype(int)
        place = np.c_[self.place[:, :2], self.place[:, 2] + self.place[:, :2] @ [left, top]]
        teeth_HW = torch.from_numpy(warp(teeth[..., 0], place, self.decoder.shape) / 255).float()
        fixed, shown, unknown = self.decoder.fixed, FIXED.index(TEETH), FIXED.index(UNKNOWN)
        fixed[shown] = torch.maximum(fixed[shown], teeth_HW.to(fixed))
        fixed[unknown] = unknown_teeth(fixed[shown][None, None])[0, 0]

    def _corners(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        points = np.array([[x, y] for x in (low[0], high[0]) for y in (low[1], high[1])]) * self.size
        return points @ self.place[:, :2].T + self.place[:, 2]

    @cached_property
    def grain(self) -> Grain:
        """Of the chin."""
        chin = self.place @ [*(CHIN * self.size), 1]
        return Grain(self.shown.picture, chin, self.scale * CHIN_SIZE, EVEN * self.scale)

    def frames(self, codes_FN: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """uint8 [h, w, 3] for every code [N]."""
        codes = iter(codes_FN)
        count = BATCH if self.lips is None else 1  # of a picture with other lips, features are its own
        while batch := list(islice(codes, count)):
            codes_BN = part_pursed(wider(part_surely(keep_smile(torch.stack(batch), self.aperture))))
            shown, mouth = self.shown, None
            if self.lips is not None:
                if self.decoder.toothless and self.aperture > BARED:
                    codes_BN = at_most(codes_BN, self.aperture)
                codes_BN, share_1 = close(codes_BN, self.lips.aperture)
                shown = shown.closed(self.lips, float(share_1))
                mouth = None if shown is self.shown else self.decoder.read(self.crop(shown.picture))
            motion_BMHW = self.decoder(codes_BN, mouth)
            motion_BMHW[:, FIXED] = self.decoder.fixed
            for code_N, motion_MHW in zip(codes_BN, motion_BMHW, strict=True):
                yield self.frame(code_N, motion_MHW.cpu(), shown)

    def frame(self, code_N: Tensor, motion_MHW: Tensor, shown: Shown | None = None) -> np.ndarray:
        """The picture, or what is ``shown`` in its place, with its head turned and its face moved."""
        shown = shown or self.shown
        look = self._look(code_N)
        out = move_eyes(shown.picture, self.eyes, *look).copy()
        still = moved = self._pixels(out)
        if self.decoder.toothless:
            moved = self._pixels(move_eyes(shown.toothless, self.eyes, *look))
        at_hw2 = self.crop_hw2
        if self.head is not None:
            at_hw2 = at_hw2 - self.head.flow(code_N[HEAD:])
        grid = (at_hw2 - torch.from_numpy(self.box[:2]).float()) / torch.tensor(self.decoder.shape[::-1]) * 2 - 1
        within = _within(grid, 1).float()
        motion_MHW = self._rounded(motion_MHW)
        right, down, share, strength, inside, opened = _read(motion_MHW[EVERYWHERE], grid)
        share, inside = (OPAQUE * _sharper(self.sharp, part) for part in (share, inside))
        share = share * within * strength
        active = strength * within
        source_hw2 = _through(self.place, at_hw2 + within[..., None] * torch.stack([right, down], -1))
        moving = ~_within(source_hw2 - self.here_hw2, UNMOVED)
        result = self._sample(moved, source_hw2)
        if shown.between is not None:
            between = active * (self._sample(self._pixels(shown.between), source_hw2)[0] / 255).clamp(0, 1)
            share, inside = torch.maximum(share, between), torch.maximum(inside, between)
        if self.decoder.toothless:
            assert shown.teeth is not None
            result += (1 - active) * (self._sample(still, source_hw2) - result)  # at rest all is as it is shown
            still_hw2 = _through(self.place, at_hw2)
            teeth_11hw = self._pixels(shown.teeth) / 255
            were, come = (self._sample(teeth_11hw, hw2)[0].clamp(0, 1) for hw2 in (still_hw2, source_hw2))
            stay = active * (1 - lips_met(code_N)) * were * come  # teeth come from teeth
        changed = moving | (share > SOME)
        if self.shade:
            edge = self.shade * active * smoothstep(*LIPS, opened)
            result *= 1 - edge * torch.tensor(SHADED).view(3, 1, 1)
            changed |= edge > SOME
        drawn = (share > SOME) | (moving & (inside > SOME))
        if drawn.any():
            still_n2 = _through(self.place, at_hw2[drawn])
            still_3n = self._sample(still, still_n2[None])[:, 0]
            red_n = (still_3n[0] - still_3n[1]) / still_3n[0].clamp(min=1)
            paint_Mn = _read(motion_MHW[STRENGTH + 1 :], grid[drawn][None])[:, 0]
            teeth_n = _sharper(SURE, paint_Mn[TEETH - STRENGTH - 1]) * smoothstep(RED[1], RED[0], red_n)
            paint_Mn[TEETH - STRENGTH - 1] = teeth_n
            own_n = 1 + teeth_n * (1 / OPAQUE - 1)  # teeth that are his own are not made up
            share[drawn] *= own_n
            paint_Mn[INSIDE - STRENGTH - 1] = own_n * inside[drawn]
            bared_11HW = motion_MHW[TEETH : TEETH + 1][None].to(self.decoder.source)
            light_17 = light_on_teeth(self.decoder.light_B7, self.decoder.source, bared_11HW).cpu()
            result[:, drawn] = self._paint(result[:, drawn], share[drawn], paint_Mn, still_3n, light_17)
            result[:, drawn] *= 1 + share[drawn] * (1 - teeth_n) * self.grain.at(self.here_hw2[drawn])
        if self.decoder.toothless:
            result += stay * (self._sample(self._pixels(shown.enamel), still_hw2) - result)
        # Where nothing moves the picture's own bytes stay, not their resampling.
        kept = torch.from_numpy(out[self.region]).permute(2, 0, 1)
        result = torch.where(changed, result.round().clamp(0, 255).to(torch.uint8), kept)
        out[self.region] = result.permute(1, 2, 0).numpy()
        return out

    def _rounded(self, motion_MHW: Tensor) -> Tensor:
        """With rounder corners of the mouth; teeth stay in their places."""
        # An upper lip that bares teeth stays over them, and a grin keeps its corners.
        inside_HW = self.roundness * motion_MHW[INSIDE] * motion_MHW[STRENGTH]
        flow_2HW = round_corners(inside_HW, upper=0.0 if self.decoder.toothless else UPPER)
        if not flow_2HW.any():
            return motion_MHW
        rounded_MHW = motion_autoencoder.warp(motion_MHW[None], flow_2HW[None])[0]
        rounded_MHW[FIXED] = motion_MHW[FIXED]
        rounded_MHW[:SHARE] += flow_2HW
        return rounded_MHW

    def _paint(self, moved_3n: Tensor, share_n: Tensor, paint_Mn: Tensor, still_3n: Tensor, light_17: Tensor) -> Tensor:
        """Colours [3, n], 0 to 255, of pixels of which a share is painted."""
        paint = Paint(*(part[None, ..., None] for part in paint_Mn.split(PAINT)))
        moved, still = (colour[None, ..., None] / 127.5 - 1 for colour in (moved_3n, still_3n))
        shown = paint.over(moved, share_n[None, None, :, None], still, light_17, self.teeth_4RS)
        return (shown[0, ..., 0] + 1) * 127.5

    def _pixels(self, picture_hw3: np.ndarray) -> Tensor:
        """What of a picture the region's pixels may come from."""
        return torch.from_numpy(picture_hw3[self.around].copy()).permute(2, 0, 1)[None].float()

    def _sample(self, source_13hw: Tensor, source_hw2: Tensor) -> Tensor:
        height, width = source_13hw.shape[2:]
        grid = 2 * (source_hw2 - torch.from_numpy(self.origin).float()) / torch.tensor([width, height]) - 1
        return F.grid_sample(source_13hw, grid[None], align_corners=False, padding_mode="border", mode="bicubic")[0]

    def _look(self, code_N: Tensor) -> tuple[float, tuple[float, float]]:
        """How far the eyes are shut, and their turn (radians right and down): a head that sways leaves them behind."""
        shut = float((code_N[BLINK] * (1 - code_N[KEEP_EYES])).clamp(0, 1))
        yaw, pitch = code_N[HEAD : HEAD + 2].float()
        held = -torch.stack([yaw, pitch]) * torch.exp(-(yaw.square() + pitch.square()) / FOLLOWS**2)
        turned = held + torch.from_numpy(self.gaze(shut)).to(held)
        right, down = (float(angle) if self.head is not None and abs(angle) > UNSEEN else 0.0 for angle in turned)
        return shut if shut > STILL else 0.0, (right, down)


def _read(maps_MHW: Tensor, grid_hw2: Tensor) -> Tensor:
    """Maps of the face's box [M, h, w] at places of it, -1 to 1."""
    return F.grid_sample(maps_MHW[None], grid_hw2[None], align_corners=False, padding_mode="border")[0]


def _within(points_X2: Tensor, bound: float) -> Tensor:
    """Whether both coordinates of points are less than that."""
    x, y = points_X2.unbind(-1)  # torch's amax along so short an axis takes ten times as long
    return (x.abs() < bound) & (y.abs() < bound)


def _sharper(times: float, edge: Tensor) -> Tensor:
    """A soft edge between 0 and 1, so many times as steep."""
    return (times * (edge - 0.5) + 0.5).clamp(0, 1)


def _through(matrix_23: np.ndarray, points_X2: Tensor) -> Tensor:
    """Points [..., 2] through an affine map."""
    (a, b, c), (d, e, f) = matrix_23.tolist()
    x, y = points_X2.unbind(-1)
    return torch.stack([a * x + b * y + c, d * x + e * y + f], -1)


def edit_mouth(aligned: Aligned, code_N: Tensor, vae: Any, strength: float = 1.0) -> np.ndarray:
    """A video's frame [h, w, 3] with another mouth, made from its own pixels; below 1 an edit comes or goes."""
    code_N = code_N.clone()
    # Nothing is kept of what the speaker of the video said, so the rest counts as far as it was to be seen.
    code_N[: len(MOUTH_CHANNELS)] *= 1 - code_N[KEEP_MOUTH]
    code_N[KEEP_MOUTH] = 0
    taken = False
    if aligned.landmarks is not None:
        code_N[PRESSING] = 0  # lips have met by then, and would only become thin
        lips = Lips.of(aligned.landmarks, aligned.picture_hw3.shape)
        _, share_1 = close(code_N[None], lips.aperture)
        picture_hw3 = aligned.picture_hw3
        if lips.aperture > SILENT:  # teeth of what was said before are debris on other lips
            picture_hw3 = without_teeth(picture_hw3, aligned.landmarks, strength)
            taken = picture_hw3 is not aligned.picture_hw3
        aligned = Aligned(lips.closed(picture_hw3, strength * float(share_1)), aligned.place, aligned.size)
    compositor = Compositor(aligned, vae, eyes=False, head=False)
    motion_MHW = compositor.decoder(code_N[None])[0].cpu()
    if taken:  # the dark in their place is no teeth, and those that are drawn do not look like it
        motion_MHW[TEETH], motion_MHW[UNKNOWN] = 0, 1
    # Lips that are to meet do, also where the decoder is not sure how far they are apart in the frame.
    motion_MHW[INSIDE] *= min(float(parted(code_N)) / MEETING, 1.0)
    motion_MHW[:SHARE] *= strength
    motion_MHW[STRENGTH] *= strength
    return compositor.frame(code_N, motion_MHW)
