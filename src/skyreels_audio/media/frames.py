"""What a frame of a video is: its colours, its pose on screen, and its samples as they are stored.

What is not edited keeps its own samples: RGB and back would blur the colours. Halved colour and matrix rounding cost
more than a good encoder does: 44.8 dB of PSNR at best on 256 × 256 footage.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Colour:
    """What the numbers of Y, U and V mean, in FFmpeg's codes (ITU-T H.273)."""

    space: int = int(Colorspace.ITU709)
    range: int = int(ColorRange.MPEG)
    primaries: int = int(ColorPrimaries.BT709)
    transfer: int = int(ColorTrc.BT709)

    @classmethod
    def of(cls, frame: VideoFrame) -> "Colour":
        """Of a decoded frame; one that is not stored as Y, U and V becomes what H.264 is by default."""
        if not is_yuv(frame.format):
            return cls()
        return cls(frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)

    def tag(self, target):
        """Write the codes onto a frame or an encoder; return it."""
        target.colorspace, target.color_range = self.space, self.range
        target.color_primaries, target.color_trc = self.primaries, self.transfer
        return target


def is_yuv(pixel_format: VideoFormat) -> bool:
    """Whether a frame holds luma and two planes of colour, of any depth and layout."""
    return not pixel_format.is_rgb and not pixel_format.has_palette and len(pixel_format.components) >= 3


@dataclass(frozen=True)
class Pose:
    """How stored frames are shown: first transposed (rows become columns), then flipped. All eight there are."""

    transposed: bool = False
    mirrored: bool = False  # left and right change places
    flipped: bool = False  # up and down change places

    @classmethod
    def of(cls, frame: VideoFrame) -> "Pose":
        """From the display matrix, as FFmpeg turns frames; an angle between quarters counts as the nearest one."""
        side_data: Any = frame.side_data  # a mapping that iterates over its values
        matrix = next((data for data in side_data if data.type == SideData.DISPLAYMATRIX), None)
        if matrix is None:
            return cls()
        # x on screen = a x + c y, y on screen = b x + d y (ISO/IEC 14496-12, 6.2.2)
        a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
        if abs(a) + abs(d) < abs(b) + abs(c):
            return cls(True, c < 0, b < 0)
        return cls(False, a < 0, d < 0)

    def __bool__(self) -> bool:
        return self.transposed or self.mirrored or self.flipped

    def upright(self, stored: np.ndarray) -> np.ndarray:
        """Rows and columns [H, W, …] of a stored frame as they are shown."""
        shown = stored.swapaxes(0, 1) if self.transposed else stored
        return shown[:: -1 if self.flipped else 1, :: -1 if self.mirrored else 1]

    @property
    def words(self) -> str:
        """What is done to stored frames; empty if nothing."""
        turns = {(True, True, False): "turned by 90° clockwise", (True, False, True): "turned by 90° anticlockwise"}
        turns |= {(False, True, True): "turned by 180°", (False, True, False): "mirrored"}
        turns |= {(False, False, True): "turned upside down and mirrored", (False, False, False): ""}
        turns |= {(True, False, False): "turned by 90° clockwise and mirrored"}
        turns |= {(True, True, True): "turned by 90° anticlockwise and mirrored"}
        return turns[self.transposed, self.mirrored, self.flipped]


BLOCK = 32  # pixels


@dataclass(frozen=True, eq=False)
class StoredFrame:
    """An upright picture in yuv420p, of even width and height (an odd last row or column is left out).

    planes: uint8: Y [H, W], U and V [H/2, W/2].
    colour: what their numbers mean.
    """

    planes: Planes
    colour: Colour

    @classmethod
    def of(cls, frame: VideoFrame) -> "StoredFrame":
        """From a decoded frame of any format."""
        colour, pose = Colour.of(frame), Pose.of(frame)
        if is_yuv(frame.format):
            planes = _planes(frame.reformat(format="yuv420p", dst_color_range=colour.range))
        else:
            planes = _planes(to_yuv420p(frame.to_ndarray(format="rgb24"), colour))
        rows, columns = frame.height // 2, frame.width // 2
        even = planes[0][: 2 * rows, : 2 * columns], *(plane[:rows, :columns] for plane in planes[1:])
        y, u, v = (np.ascontiguousarray(pose.upright(plane)) for plane in even)
        return cls((y, u, v), colour)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.planes[0].shape
        return height, width

    def rgb(self) -> np.ndarray:
        """uint8 [H, W, 3]."""
        return self.frame().to_ndarray(format="rgb24")

    def frame(self) -> VideoFrame:
        """As the codec library's own frame."""
        height, width = self.size
        flat = np.concatenate([plane.ravel() for plane in self.planes])
        return self.colour.tag(VideoFrame.from_ndarray(flat.reshape(height * 3 // 2, width), format="yuv420p"))

    def repainted(self, rgb: np.ndarray, shown: np.ndarray | None = None) -> "StoredFrame":
        """This frame with the pixels in which ``rgb`` (uint8 [H, W, 3]) differs from it; all others stay as stored.

        ``shown``: what ``rgb`` of this frame gave, if that is at hand.
        """
        differs = rgb != (self.rgb() if shown is None else shown)
        rows = np.flatnonzero(differs.reshape(len(differs), -1).any(1))
        if not len(rows):
            return self
        changed = np.zeros(self.size, bool)
        some = slice(rows[0], rows[-1] + 1)
        red, green, blue = np.moveaxis(differs[some], 2, 0)
        changed[some] = red | green | blue  # numpy's any() along so short an axis takes ten times as long
        pairs = changed[::2] | changed[1::2]
        halved = pairs[:, ::2] | pairs[:, 1::2]
        # Colours of a pixel are made from those around it, and the library's fast paths want whole blocks.
        part = tuple(
            slice(max((ends[0] // BLOCK - 1) * BLOCK, 0), (ends[-1] // BLOCK + 2) * BLOCK)
            for ends in (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
        )
        half = tuple(slice(ends.start // 2, ends.stop // 2) for ends in part)
        painted = _planes(to_yuv420p(rgb[part], self.colour))
        planes = tuple(plane.copy() for plane in self.planes)
        for plane, new, where, at in zip(planes, painted, (changed, halved, halved), (part, half, half), strict=True):
            np.copyto(plane[at], new, where=where[at])
        return StoredFrame(cast(Planes, planes), self.colour)


def to_yuv420p(image: np.ndarray, colour: Colour) -> VideoFrame:
    """uint8 HWC, RGB → the codec library's frame, with colour at half the resolution."""
    return VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
        format="yuv420p",
        dst_colorspace=colour.space,
        dst_color_range=colour.range,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
    )


def _planes(frame: VideoFrame) -> Planes:
    """Y, U and V of a frame in yuv420p."""
    y, u, v = (
        np.frombuffer(cast(Any, plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in frame.planes
    )
    return y, u, v
