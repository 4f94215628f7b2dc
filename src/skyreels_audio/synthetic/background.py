"""What stands behind a person: plain, gradient, blurred shapes, soft noise, or a photograph; sometimes drifting."""

import colorsys
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

SIDE = 160  # pixels of the stored picture; all of it is out of focus


@dataclass(frozen=True, eq=False)
class Background:
    picture: np.ndarray  # uint8 [H, W, 3]
    kind: str  # for a caption: "plain", "gradient", "blurred", "mottled", "photographic"
    colour: str  # word for its mean colour
    extent: float = 1.0  # share of the picture's width and height in view
    drift: tuple[float, float] = (0.0, 0.0)  # how far the view moves per frame, in pictures

    @property
    def moving(self) -> bool:
        return self.drift != (0.0, 0.0)

    def offset(self, frame: int) -> tuple[float, float]:
        """Corner of the view at a frame, in texture units; it swings back at the picture's edge."""
        room = 1 - self.extent
        swing = lambda speed: room * (0.5 + 0.5 * np.sin(frame * speed / max(room, 1e-6)))  # noqa: E731
        return float(swing(self.drift[0])), float(swing(self.drift[1]))


def sample_background(rng: np.random.Generator, photograph: np.ndarray | None = None) -> Background:
    """A background; with `photograph` (uint8 [H, W, 3]) that picture, out of focus."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    first, second = _wall_colour(rng), _wall_colour(rng)
    if photograph is not None:
        kind, picture = "photographic", _fit(photograph) / 255.0
        picture = gaussian_filter(picture, (rng.uniform(0.5, 5),) * 2 + (0,))
    else:
        kind = str(rng.choice(["plain", "gradient", "blurred", "mottled"], p=[0.25, 0.3, 0.25, 0.2]))
        if kind == "plain":
            vignette = 1 - rng.uniform(0, 0.35) * np.hypot(x - 0.5, y - 0.5)
            picture = first * vignette[..., None]
        elif kind == "gradient":
            angle = rng.uniform(0, 2 * np.pi)
            share = np.clip((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + 0.5, 0, 1)[..., None]
            picture = first * (1 - share) + second * share
        elif kind == "blurred":
            picture = np.ones((SIDE, SIDE, 3)) * first
            for _ in range(rng.integers(5, 18)):
                left, top = rng.integers(-30, SIDE, 2)
                width, height = rng.integers(8, 90, 2)
                picture[max(top, 0) : top + height, max(left, 0) : left + width] = 0.5 * _wall_colour(rng) + 0.5 * first
            picture = gaussian_filter(picture, (rng.uniform(1, 7),) * 2 + (0,))
        else:
            octaves = [s * gaussian_filter(rng.normal(size=(SIDE, SIDE)), s, mode="wrap") for s in (3, 9, 24)]
            clouds = np.sum(octaves, 0)
            picture = first + rng.uniform(0.02, 0.09) * (clouds / clouds.std())[..., None] * (0.5 + second)
    moves = rng.uniform() < 0.2 and kind != "plain"
    picture = np.clip(picture, 0, 1)
    return Background(
        picture=(picture * 255).astype(np.uint8),
        kind=kind,
        colour=colour_word(picture.mean((0, 1))),
        extent=float(rng.uniform(0.6, 0.85)) if moves else 1.0,
        drift=tuple(rng.normal(size=2) * 0.002) if moves else (0.0, 0.0),
    )


def colour_word(rgb) -> str:
    """The plain English name of a display colour (three values 0..1)."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(float(np.clip(c, 0, 1)) for c in rgb))
    if lightness < 0.12:
        return "black"
    if lightness > 0.88:
        return "white"
    if saturation < 0.14:
        return "dark grey" if lightness < 0.35 else "grey" if lightness < 0.65 else "light grey"
    names = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "red")
    name = names[int(np.searchsorted([15, 45, 70, 165, 195, 255, 290, 340], hue * 360))]
    if name == "orange" and (lightness < 0.5 or saturation < 0.5):
        name = "brown" if lightness < 0.55 else "beige"
    return f"dark {name}" if lightness < 0.3 else f"light {name}" if lightness > 0.72 and name != "beige" else name


def _wall_colour(rng) -> np.ndarray:
    """Mostly muted, now and then vivid."""
    saturation = rng.uniform(0, 0.35) if rng.uniform() < 0.7 else rng.uniform(0.35, 0.85)
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), saturation, rng.beta(1.6, 1.3)))


def _fit(image: np.ndarray) -> np.ndarray:
    """The middle square at the stored size."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = Image.fromarray(image).crop((left, top, left + side, top + side))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BOX))
