"""The sync expert that ships: two linear maps, found in closed form."""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from skyreels_audio.bundled import bundled
from skyreels_audio.media import InputError
from skyreels_audio.models.syncnet import COEFFICIENTS, MFCC_PER_FRAME, WINDOW, SyncExpert, SyncNet


class LinearSync(SyncExpert):
    """Linear maps whose outputs correlate most where lips and sound belong together.

    Canonical correlations of the two, as in Slaney & Covell, "FaceSync: a linear operator for measuring synchronization
    of video facial images and audio tracks", 2000; `tools/fit_sync_expert.py` finds them. Lips and sound are seen as
    they differ from the clip's mean, so that faces, light, voices and microphones say nothing.

    Args:
        embedding: width D of the common space, canonical pairs.
        side, region, zero_edges: see `SyncNet`.
        box: of the picture, what is seen of it: left, top, right, bottom, pixels.
        pool: pixels that are averaged, across and down.
    """

    @register_to_config
    def __init__(
        self,
        embedding: int = 12,
        side: int = 64,
        region: tuple[float, float, float, float] = (0.25, 0.34, 0.75, 0.84),
        box: tuple[int, int, int, int] = (16, 10, 56, 48),
        pool: int = 2,
        zero_edges: bool = False,
    ) -> None:
        super().__init__()
        left, top, right, bottom = box
        cells = (right - left) // pool * ((bottom - top) // pool)
        self.lips = nn.Linear(WINDOW * cells, embedding, bias=False)
        self.sound = nn.Linear(WINDOW * COEFFICIENTS, embedding, bias=False)

    def embed_pictures(self, pictures_B3FHW: Tensor) -> Tensor:
        return F.normalize(self.lips(windows_of(self.mouths(self.grey(pictures_B3FHW)))), dim=-1)

    def embed_audio(self, mfcc_BCM: Tensor) -> Tensor:
        return F.normalize(self.sound(windows_of(self.sounds(mfcc_BCM))), dim=-1)

    def embed_clip(self, faces_FHWC: Tensor) -> Tensor:
        grey_BFC = torch.cat([self.grey(self.crop(piece[None])) for piece in faces_FHWC.split(100)], 1)
        return F.normalize(self.lips(windows_of(self.mouths(grey_BFC))), dim=-1)[0]

    def grey(self, pictures_B3FHW: Tensor) -> Tensor:
        """Brightness of the cells of the mouth's box [B, F, cells]."""
        left, top, right, bottom = self.config.box
        box = pictures_B3FHW[..., top:bottom, left:right].to(self.dtype).mean(1)
        return F.avg_pool2d(box, self.config.pool).flatten(2)

    def mouths(self, grey_BFC: Tensor) -> Tensor:
        """Without each frame's light, in units of the clip's contrast, without the clip's mean [B, F, cells]."""
        flat = grey_BFC - grey_BFC.mean(2, keepdim=True)
        flat = flat / (flat.std((1, 2), keepdim=True) + 8)
        return flat - flat.mean(1, keepdim=True)

    def sounds(self, mfcc_BCM: Tensor) -> Tensor:
        """Coefficients of every frame as they differ from the clip's mean [B, F, 13]."""
        frames = mfcc_BCM.shape[2] // MFCC_PER_FRAME
        each = mfcc_BCM[..., : MFCC_PER_FRAME * frames].unflatten(2, (frames, MFCC_PER_FRAME)).mean(3)
        return (each - each.mean(2, keepdim=True)).transpose(1, 2).to(self.dtype)


def windows_of(values_BFC: Tensor) -> Tensor:
    """What five frames hold, one after the other: [B, F - 4, 5 · C]."""
    return values_BFC.unfold(1, WINDOW, 1).transpose(2, 3).flatten(2)


@cache
def load_sync_expert() -> SyncExpert:
    """Our own sync expert (`OURS`), of either class.

    Raises:
        InputError: this installation has no weights of it.
    """
    folder = bundled("weights/sync-expert")
    if not (folder / "config.json").exists():
        raise InputError(
            "No sync expert ships with this installation: give the published syncnet_v2.model, or train one with "
            "`skyreels-audio train recipes/syncnet.yaml`."
        )
    config: Any = SyncExpert.load_config(folder)
    kind: Any = LinearSync if config["_class_name"] == "LinearSync" else SyncNet
    return kind.from_pretrained(folder, torch_dtype=torch.float32).eval()
