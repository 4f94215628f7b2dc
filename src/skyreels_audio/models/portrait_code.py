"""The code of a still portrait: what a renderer of people is told, as one vector.

The colours of the background come first, then numbers (shape of the head, colours of skin, hair and clothes), then
choices (hair style, beard, …) as one-hots. Shapes: B batch, C channel, H W pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 3  # the background is so many colours across and down, smoothly joined
COMPONENTS = 20  # of the head's shape; what varies beyond them (2 mm) follows from age, sex and ancestry
COLOURS = ("skin", "hair", "lips", "iris", "cloth")  # square roots of linear RGB
CHOICES = {
    "sex": ("woman", "man"),
    "hair_style": ("bald", "cropped", "short", "swept back", "curly", "bob", "long"),
    "beard": ("none", "stubble", "moustache", "goatee", "full"),
    "background": ("plain", "gradient", "blurred", "mottled"),
    "light": ("soft", "warm", "cool", "dramatic"),
}
PARTS = {
    "background_mean": 3,
    "background_grid": 3 * GRID**2,  # what its colours differ from the mean
    "shape": COMPONENTS,
    "person": 3,  # age / 90, shares of African and Asian ancestry
    "light_side": 1,
    **{name: 3 for name in COLOURS},
    **{name: len(options) for name, options in CHOICES.items()},
}
CODE_CHANNELS = sum(PARTS.values())
SHAPING = ("shape", "person", "sex", "hair_style", "beard")  # what the shape of a head follows from


def part(code_BC: Tensor, name: str) -> Tensor:
    """The channels of one name, [B, n]."""
    start = sum(size for _, size in list(PARTS.items())[: list(PARTS).index(name)])
    return code_BC[:, start : start + PARTS[name]]


def snap(code_BC: Tensor) -> Tensor:
    """Every choice made: its largest channel is 1, the others 0."""
    parts = {name: part(code_BC, name) for name in PARTS}
    for name in CHOICES:
        parts[name] = F.one_hot(parts[name].argmax(1), PARTS[name]).to(code_BC.dtype)
    return torch.cat(list(parts.values()), 1)


def backdrop(code_BC: Tensor, side: int) -> Tensor:
    """The background [B, 3, side, side] that codes say, in [0, 1] as far as their colours are."""
    grid = part(code_BC, "background_grid").unflatten(1, (3, GRID, GRID))
    grid = grid + part(code_BC, "background_mean")[:, :, None, None]
    return F.interpolate(grid, (side, side), mode="bicubic", align_corners=True)
