"""The inside of a mouth: teeth, tongue and the dark behind them, drawn where a decoder says that skull and jaw stand.

A picture whose lips are closed does not show them, so they must be made up, and they look much alike in everybody.
What convolutions paint of them is a mean over all that might be there: milky, without single teeth. So nothing of
their look is learned. Layers that are part of the model, as fine as the picture, are laid over each other, and only
their place, how far the jaw hangs and where lips end is the decoder's. Lower teeth are not drawn: as small and dim as
they show in speech they were grey chips on a lip to everybody who looked.

Places are in the frame of the skull: across -1 to 1 over the front of the upper arch, down from -1 at its gum to 1 at
the edges of its incisors. ``gap`` is how far the edges of the lower incisors are below those of the upper ones, in the
same unit, half the height of an incisor.

Shapes: B batch, H W pixels, R S rows and columns of a picture of teeth.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TINT = 0.33  # power of the skin's hue that white has in its light: teeth of photographs have 0.18 to 0.40
PAINTED, TINTED, DIMMED = (0.4, 0.52), 0.6, 0.2  # of more saturated skin, which is painted, more, and less light
COLOURED = 0.18  # saturation of skin from which on a picture counts as coloured
TONGUE, THROAT, CHEEK = (0.66, 0.32, 0.31), (0.14, 0.05, 0.045), (0.34, 0.14, 0.12)  # colours under white light
ROWS, COLUMNS = (0.0, 0.65), (0.19, 0.81)  # of the face's box, between which nearly all is skin
COARSE = 4  # texels of a picture of teeth per pixel of the face's box
AROUND = 11  # pixels of the face's box around the inside of a mouth in which places are known
# How places across and down change with pixels x and y of the face's box, and by what deviation: 488 heads of training.
USUAL, VARIES = ((0.0465, 0.0), (0.0, 0.244)), ((0.0065, 0.018), (0.005, 0.033))
STIFF = 4.0  # what that counts for, beside one for each pixel
BARED, EDGE = 60, 5  # pixels of the face's box that show teeth, from which on they are all; and beyond them
ENAMEL = 0.79, 0.765, 0.715  # of usual teeth under white light, as far as a smile shows them
LONGEST = 2.0  # place down to which a long tooth goes
ROOM = 1.2  # half heights of an incisor that a picture of teeth has above and below its middle
SEEN, LIT = (0.21, 0.37), (0.78, 1.22)  # openness from which on teeth are seen, and their light in a slit and wide open
WARM = 0.9, 1.05, 1.12  # powers of the light on teeth: what comes in late was red lips' and gums' before
DARK, DARKER = 200, 0.85  # one pixel of a face in so many is as dark as its nostrils; a throat over that
PARTED = 0.28, 0.42  # the most open place of lips that hardly part, and of a mouth
SHADE = 9  # pixels of the face's box over which lips shade what is behind them


def face_light(source_B3HW: Tensor) -> Tensor:
    """White in the light of faces (-1 to 1, their boxes), how dark its dark is, and how coloured the picture is [B, 7].

    All 0 to 1. White is as bright as the brightest sixth of a face, and has some of the skin's hue: so are the teeth of
    128 photographs, 17 % about it, whatever the skin. A drawing in ink has no red tongue, a pale film no black throat.
    """
    height, width = source_B3HW.shape[-2:]
    (top, bottom), (left, right) = ((round(a * n), round(b * n)) for (a, b), n in ((ROWS, height), (COLUMNS, width)))
    pixels_B3N = (source_B3HW[..., top:bottom, left:right].float() + 1).flatten(2) / 2
    by_grey_BN = pixels_B3N.mean(1).argsort(1, descending=True)
    sorted_B3N = pixels_B3N.gather(2, by_grey_BN[:, None].expand_as(pixels_B3N))
    count = by_grey_BN.shape[1]
    white_B1 = sorted_B3N[..., : count // 6].mean((1, 2))[:, None]
    skin_B3 = sorted_B3N[..., : count // 2].mean(2) + 1e-3
    saturation_B1 = 1 - skin_B3.amin(1, keepdim=True) / skin_B3.amax(1, keepdim=True)
    painted_B1 = smoothstep(*PAINTED, saturation_B1)
    tint_B1 = TINT + (TINTED - TINT) * painted_B1
    hue_B3 = (skin_B3 / skin_B3.mean(1, keepdim=True)) ** tint_B1
    dark_B3 = DARKER * sorted_B3N[..., -count // DARK :].mean(2)
    white_B1 = white_B1 * (1 - DIMMED * painted_B1)
    return torch.cat([white_B1 * hue_B3, dark_B3, (saturation_B1 / COLOURED).clamp(max=1)], 1)


def fit_rigid(place_B2HW: Tensor, gap_B1HW: Tensor, inside_B1HW: Tensor) -> tuple[Tensor, Tensor]:
    """Places and gap of bodies that do not bend: an affine map of pixels, and one gap, by those in and around a mouth.

    The decoder knows them there alone. Teeth are as large as people's are (a ridge regression): of a mouth that shows
    both rows of teeth, clenched, it may say that it is one row of tall ones.
    """
    height, width = place_B2HW.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels_N2 = torch.stack([x, y], -1).flatten(0, 1).to(place_B2HW)
    weight_BN1 = (F.max_pool2d(inside_B1HW, AROUND, 1, AROUND // 2) > 0.3).flatten(2).transpose(1, 2).to(place_B2HW)
    share_BN1 = weight_BN1 / weight_BN1.sum(1, keepdim=True).clamp(min=1)
    place_BN2 = place_B2HW.flatten(2).transpose(1, 2)
    at_B12, is_B12 = (share_BN1.transpose(1, 2) @ v for v in (pixels_N2, place_BN2))
    away_BN2 = weight_BN1.sqrt() * (pixels_N2 - at_B12)
    spread_B22 = away_BN2.transpose(1, 2) @ away_BN2
    seen_B22 = away_BN2.transpose(1, 2) @ (weight_BN1.sqrt() * (place_BN2 - is_B12))
    usual_22, stiff_22 = place_B2HW.new_tensor(USUAL), STIFF / place_B2HW.new_tensor(VARIES).square()
    slopes = [
        torch.linalg.solve(spread_B22 + stiff_22[:, k].diag(), seen_B22[:, :, k] + stiff_22[:, k] * usual_22[:, k])
        for k in range(2)
    ]
    seated_BN2 = is_B12 + (pixels_N2 - at_B12) @ torch.stack(slopes, 2)
    gap_B111 = (share_BN1 * gap_B1HW.flatten(2).transpose(1, 2)).sum(1)[..., None, None]
    return seated_BN2.transpose(1, 2).reshape(place_B2HW.shape), gap_B111.expand_as(gap_B1HW)


def opening(inside_B1HW: Tensor) -> Tensor:
    """How much of a pixel's surroundings is open mouth: what light comes in by. Lips that hardly part let none in."""
    open_B1HW = F.avg_pool2d(inside_B1HW, SHADE, 1, SHADE // 2, count_include_pad=False)
    return open_B1HW * smoothstep(*PARTED, open_B1HW.amax((2, 3), keepdim=True))


def coarse(teeth_4RS: Tensor, texels: int = COARSE) -> Tensor:
    """Pictures of teeth for a mouth whose pixels are as large as so many of their texels."""
    size = (max(teeth_4RS.shape[1] // texels, 2), max(teeth_4RS.shape[2] // texels, 2))
    return F.interpolate(teeth_4RS[None], size, mode="area")[0] if texels > 1 else teeth_4RS


def upper_teeth(place_B2HW: Tensor, teeth_4RS: Tensor) -> Tensor:
    """Colour under white light and coverage [B, 4, H, W] of the upper teeth."""
    colour_B3HW, cover_B1HW = _look(teeth_4RS, place_B2HW).split((3, 1), 1)
    ended_B1HW = smoothstep(ROOM, 1.0, place_B2HW[:, 1:])  # beyond a picture its last row goes on
    return torch.cat([colour_B3HW, cover_B1HW * ended_B1HW], 1)


def own_teeth(place_B2HW: Tensor) -> Tensor:
    """How far teeth that a picture bares at a place [B, 1, H, W] are upper ones, which may be longer than usual."""
    return smoothstep(LONGEST, 1.0, place_B2HW[:, 1:])


def unknown_teeth(bared_B1HW: Tensor) -> Tensor:
    """How far upper teeth may be made up: not below those of a picture that bares them, which shows all there are."""
    surely_B1HW = (2 * bared_B1HW - 1).clamp(min=0)
    shown_B111 = (surely_B1HW.sum((2, 3), keepdim=True) / BARED).clamp(max=1)
    return 1 - shown_B111 * (1 - F.max_pool2d(surely_B1HW, EDGE, 1, EDGE // 2))


def light_on_teeth(light_B7: Tensor, source_B3HW: Tensor, bared_B1HW: Tensor) -> Tensor:
    """The light in which made up teeth look like those that the source bares, where it does."""
    surely_B1HW = (2 * bared_B1HW - 1).clamp(min=0)
    area_B1 = surely_B1HW.sum((2, 3))
    own_B3 = (surely_B1HW * (source_B3HW.float() + 1) / 2).sum((2, 3)) / area_B1.clamp(min=1e-3)
    own_B3 = own_B3 / own_B3.new_tensor(ENAMEL)
    shown_B1 = (area_B1 / BARED).clamp(max=1)
    white_B3 = light_B7[:, :3] + shown_B1 * (own_B3 - light_B7[:, :3])
    return torch.cat([white_B3, light_B7[:, 3:]], 1)


def draw_inside(
    place_B2HW: Tensor,
    gap_B1HW: Tensor,
    opening_B1HW: Tensor,
    light_B7: Tensor,
    teeth_4RS: Tensor,
    unknown_B1HW: Tensor | float = 1.0,
) -> Tensor:
    """Colours [B, 3, H, W], -1 to 1, of the inside of mouths, wherever one looks.

    Args:
        place_B2HW: of each pixel in the skull, across and down.
        gap_B1HW: between the edges of the teeth.
        opening_B1HW: from ``opening``.
        light_B7: from ``face_light``.
        teeth_4RS: upper teeth, colour under white light and coverage.
        unknown_B1HW: from ``unknown_teeth``.
    """
    across, down = place_B2HW[:, :1], place_B2HW[:, 1:]
    throat, cheek = (place_B2HW.new_tensor(c).view(1, 3, 1, 1) for c in (THROAT, CHEEK))
    colour = throat + smoothstep(0.5, 1.1, across.abs()) * (cheek - throat)
    colour = lay_tongue(colour, across, (down - 1) / gap_B1HW.clamp(min=0.5), gap_B1HW, opening_B1HW)
    colour = colour * (0.62 + 0.38 * smoothstep(0.35, 0.9, opening_B1HW))
    # Teeth are in the shade of the lips: in what is nearly closed they are hardly to be seen.
    (dim, bright), warm = LIT, place_B2HW.new_tensor(WARM).view(1, 3, 1, 1)
    lit = (dim + (bright - dim) * smoothstep(0.1, 0.6, opening_B1HW)) ** warm
    seen = smoothstep(*SEEN, opening_B1HW) * unknown_B1HW
    upper = upper_teeth(place_B2HW, teeth_4RS)
    colour = colour + seen * upper[:, 3:] * (throat + lit * (upper[:, :3] - throat) - colour)
    grey = colour.mean(1, keepdim=True)
    colour = grey + light_B7[:, 6:, None, None] * (colour - grey)
    white, dark = light_B7[:, :6, None, None].split(3, 1)
    return 2 * (dark + (white - dark) * colour).clamp(0, 1) - 1


def lay_tongue(colour: Tensor, across: Tensor, level: Tensor, gap: Tensor, opened: Tensor) -> Tensor:
    """Colours under white light [B, 3, H, W] of a throat with the tongue before it; all else [B, 1, H, W].

    ``level`` is 0 at the edges of the upper teeth and 1 at those of the lower ones, behind which the tongue lies. It is
    darker to the back, to its sides and where it bends down to its tip, has a groove along its middle, and is wet.
    """
    middle, tongue = across.square(), colour.new_tensor(TONGUE).view(1, 3, 1, 1)
    there = smoothstep(0.12, 0.38, level - 0.45 * middle) * smoothstep(0.3, 1.2, gap)
    front = smoothstep(0.05, 0.7, level - 0.3 * middle)
    lit = (0.34 + 0.85 * front) * (1 - 0.65 * smoothstep(0.75, 1.25, level + 0.25 * middle))
    lit = lit * (1 - 0.75 * middle).clamp(min=0) * (1 - 0.22 * front * torch.exp(-(across / 0.14).square()))
    sheen = 0.12 * torch.exp(-((level - 0.62) / 0.16).square() - ((across.abs() - 0.26) / 0.16).square())
    tongue = (tongue + sheen * (1 - tongue)) * (0.8 + 0.2 * smoothstep(0.3, 0.7, opened))
    return colour + there * (lit * tongue - colour)


def _look(layer_4RS: Tensor, place_B2HW: Tensor) -> Tensor:
    grid_BHW2 = place_B2HW.float().permute(0, 2, 3, 1) / place_B2HW.new_tensor([1.0, ROOM])
    layer = layer_4RS.float().expand(len(grid_BHW2), -1, -1, -1)
    return F.grid_sample(layer, grid_BHW2, align_corners=False, padding_mode="border")


def smoothstep(low: float, high: float, x: Tensor) -> Tensor:
    """0 below ``low``, 1 above ``high``, smooth between; the other way round where ``low`` is the larger."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
