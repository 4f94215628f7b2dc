"""Where a person's surfaces are in a portrait: a mesh whose places in the picture are linear in the code.

Nothing of it is trained; ``synthetic.portraits`` fits it to the renderer's people. What it draws are maps for the
painter: what is seen at a pixel, facing where, in which plain colour.

Shape letters: B batch, C channel of the code, P channel that shapes, V vertex, F triangle, N point, K map, H W pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skyreels_audio.models.portrait_code import CHOICES, SHAPING, backdrop, part

TRAITS = ("place_x", "place_y", "place_z", "normal_x", "normal_y", "normal_z", "lip", "ambient", "eye", "cloth", "hair")
MAPS = 3 + 1 + len(TRAITS) + 1  # plain colour, whether a surface is there, traits, beard
EYE_CENTRE, IRIS = (0.313, 0.163), 0.055  # of the place's x (either side) and z; radius
FINEST = 24  # points along the side of a triangle
CLOUDS = 160  # side of the picture of a mottled background's clouds


class PortraitGeometry(nn.Module):
    """Buffers of the mesh, and its drawing.

    ``places_PV3``: x, y in fractions of the picture and distance in metres from some plane, for 1 and the shaping
    channels. ``traits_VK``: see ``TRAITS``. ``hair_SV``, ``kept_SV``, ``beard_SV``: of each hair style or beard, how
    far inside the hairline or beard a vertex is, and whether it is drawn (negative is not). ``level_F``: points along
    a triangle's side. ``clouds_HW``: what a mottled background adds.
    """

    places_PV3: Tensor
    traits_VK: Tensor
    hair_SV: Tensor
    kept_SV: Tensor
    beard_SV: Tensor
    triangles_F3: Tensor
    level_F: Tensor
    clouds_HW: Tensor

    def __init__(self, vertices: int, triangles: int) -> None:
        super().__init__()
        shaping = 1 + sum(part(torch.zeros(1, 1000), name).shape[1] for name in SHAPING)
        styles, beards = len(CHOICES["hair_style"]), len(CHOICES["beard"])
        shapes = {
            "places_PV3": (shaping, vertices, 3),
            "traits_VK": (vertices, len(TRAITS)),
            "hair_SV": (styles, vertices),
            "kept_SV": (styles, vertices),
            "beard_SV": (beards, vertices),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("triangles_F3", torch.zeros(triangles, 3, dtype=torch.int16))
        self.register_buffer("level_F", torch.ones(triangles, dtype=torch.uint8))
        self.register_buffer("clouds_HW", torch.zeros(CLOUDS, CLOUDS))
        self._points: tuple[Tensor, Tensor] | None = None

    def points(self) -> tuple[Tensor, Tensor]:
        """Vertices [N, 3] of each point's triangle and its weights [N, 3] of them."""
        if self._points is None:
            corners, weights = [], []
            for level in self.level_F.unique().tolist():
                a, b = torch.meshgrid(torch.arange(level + 1), torch.arange(level + 1), indexing="ij")
                inside = a + b <= level
                w = torch.stack([a[inside], b[inside], level - a[inside] - b[inside]], -1) / level
                chosen = self.triangles_F3[self.level_F == level].long()
                corners.append(chosen.repeat_interleave(len(w), 0))
                weights.append(w.repeat(len(chosen), 1))
            self._points = torch.cat(corners), torch.cat(weights)
        return self._points

    @torch.no_grad()
    def draw(self, code_BC: Tensor, side: int) -> Tensor:
        """Maps [B, K, side, side] of snapped codes, float32."""
        code_BC = code_BC.float()
        shaping_BP = torch.cat([torch.ones_like(code_BC[:, :1]), *(part(code_BC, name) for name in SHAPING)], 1)
        mottled = part(code_BC, "background")[:, CHOICES["background"].index("mottled")]
        clouds = F.interpolate(self.clouds_HW[None, None].float(), (side, side), mode="area")
        walls = backdrop(code_BC, side) + mottled.view(-1, 1, 1, 1) * clouds
        return torch.stack([self._draw(code_BC[i : i + 1], shaping_BP[i], walls[i], side) for i in range(len(code_BC))])

    def _draw(self, code_1C: Tensor, shaping_P: Tensor, wall_3HW: Tensor, side: int) -> Tensor:
        corners_N3, weights_N3 = self.points()
        style, beard = (int(part(code_1C, name).argmax()) for name in ("hair_style", "beard"))
        places_V3 = torch.einsum("p,pvc->vc", shaping_P, self.places_PV3.float())
        table_V4 = torch.cat([places_V3, self.kept_SV[style, :, None].float()], 1)
        x, y, distance, kept = (table_V4[corners_N3] * weights_N3[..., None]).sum(1).unbind(-1)
        column, row = (x * side).floor().long(), (y * side).floor().long()
        seen = (column >= 0) & (column < side) & (row >= 0) & (row < side) & (kept >= 0)
        index = seen.nonzero()[:, 0]
        pixel, distance = (row * side + column)[index], distance[index]
        nearest = torch.full((side * side,), torch.inf).scatter_reduce(0, pixel, distance, "amin")
        first = distance <= nearest[pixel]
        covered = torch.zeros(side * side, dtype=torch.long).scatter(0, pixel[first], index[first] + 1)
        inside = covered > 0
        point = covered[inside] - 1
        traits_VK = torch.cat([self.traits_VK, self.hair_SV[style, :, None], self.beard_SV[beard, :, None]], 1).float()
        traits_NK = (traits_VK[corners_N3[point]] * weights_N3[point, :, None]).sum(1)
        traits_NK, hairy, bearded = traits_NK[:, :-2], traits_NK[:, -2], traits_NK[:, -1]
        hair = (torch.sigmoid(hairy / 0.002) * (1 - traits_NK[:, 8]) * (1 - traits_NK[:, 9])).clamp(0, 1)
        hair = torch.maximum(hair, traits_NK[:, 10])
        bearded = torch.sigmoid(bearded / 0.002)
        traits_NK[:, 10] = hair
        colour_N3 = _plain_colour(code_1C, traits_NK, hair, bearded * (0, 0.35, 0.8, 0.8, 0.8)[beard])
        maps_NK = torch.cat([colour_N3, torch.ones(len(point), 1), traits_NK, bearded[:, None]], 1)
        result_KHW = torch.zeros(MAPS, side * side)
        result_KHW[:3] = wall_3HW.flatten(1)
        result_KHW[:, inside] = maps_NK.T
        return result_KHW.unflatten(1, (side, side))


def _plain_colour(code_1C: Tensor, traits_NK: Tensor, hair_N: Tensor, bearded_N: Tensor) -> Tensor:
    """Display colours [N, 3] without light: skin, and over it lips, beard, hair, eyes and clothes."""
    skin, hair, lips, iris, cloth = (part(code_1C, name) for name in ("skin", "hair", "lips", "iris", "cloth"))
    over = lambda below, above, share: below + share[:, None] * (above - below)  # noqa: E731
    colour = over(skin, lips, traits_NK[:, 6])
    colour = over(over(colour, hair, bearded_N * (1 - traits_NK[:, 6])), hair, hair_N)
    from_iris = torch.hypot(traits_NK[:, 0].abs() - EYE_CENTRE[0], traits_NK[:, 2] - EYE_CENTRE[1])
    eye = over(torch.full_like(colour, 0.88), iris, torch.sigmoid((IRIS - from_iris) / 0.005))
    eye = over(eye, torch.zeros_like(eye), torch.sigmoid((0.4 * IRIS - from_iris) / 0.005))
    return over(over(colour, eye, traits_NK[:, 8]), cloth, traits_NK[:, 9])
