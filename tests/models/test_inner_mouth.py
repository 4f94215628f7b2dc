"""The inside of a mouth: layers that stand in the skull and in the jaw, lit like their face."""

import torch
from torch import Tensor

from skyreels_audio.models.inner_mouth import (
    ENAMEL,
    LIT,
    coarse,
    draw_inside,
    face_light,
    fit_rigid,
    light_on_teeth,
    opening,
    unknown_teeth,
    upper_teeth,
)

DAY = torch.tensor([[0.8, 0.8, 0.8, 0.0, 0.0, 0.0, 1.0]])


def teeth() -> Tensor:
    """White upper ones that cover what is above their edges."""
    cover = (torch.linspace(-1.2, 1.2, 48)[:, None].expand(-1, 64) < 1).float()
    return torch.stack([torch.ones_like(cover)] * 3 + [cover])


def place(height: int = 160) -> Tensor:
    """Down from -2 to 14 half incisors, straight ahead."""
    down = torch.linspace(-2, 14, height)[:, None].expand(-1, 8)
    return torch.stack([torch.zeros_like(down), down])[None]


def column(gap: float, light: Tensor = DAY, open_by: float = 1.0) -> Tensor:
    at = place()
    one = torch.ones_like(at[:, :1])
    return (draw_inside(at, gap * one, open_by * one, light, teeth())[0, :, :, 4] + 1) / 2


def test_teeth_are_the_skulls_however_far_the_jaw_hangs() -> None:
    down = place()[0, 1, :, 0]
    for gap in (2.0, 6.0):
        grey = column(gap).mean(0)
        white = grey[(down > -0.8) & (down < 0.8)]
        assert white.max() - white.min() < 0.02 and abs(white.min() - 0.8 * LIT[1]) < 0.05
        between = (down > 1.3) & (down < 0.7 + gap)
        assert grey[between].max() < 0.5 * 0.8


def test_the_tongue_is_below_the_dark_and_red() -> None:
    down, colour = place()[0, 1, :, 0], column(6.0)
    high, low = colour[:, (down > 1.5) & (down < 2)].mean(1), colour[:, (down > 6) & (down < 6.7)].mean(1)
    assert low.mean() > 2 * high.mean() and low[0] > 1.5 * low[1]


def test_a_tongue_bends_down_to_its_tip_and_to_its_sides() -> None:
    down, grey = place()[0, 1, :, 0], column(6.0).mean(0)
    back, top, tip = (
        grey[(down > 1 + 6 * a) & (down < 1 + 6 * b)].mean() for a, b in ((0.3, 0.4), (0.6, 0.75), (1.15, 1.3))
    )
    assert back < 0.8 * top and tip < 0.7 * top
    across = torch.linspace(-1, 1, 81)[None, None, None]
    one = torch.ones_like(across)
    row = draw_inside(torch.cat([across, 5 * one], 1), 6 * one, one, DAY, teeth())[0, 0, 0]
    assert row[40] < row[36] > row[20] > row[8] and row[40] < row[44] > row[60] > row[72]  # with a groove between


def test_lips_that_hardly_part_show_no_teeth() -> None:
    inside = torch.zeros(2, 1, 60, 60)
    inside[0, :, 30:32, 10:50] = 1
    inside[1, :, 28:34, 10:50] = 1
    slit, mouth = opening(inside)
    assert not slit.any() and mouth.max() > 0.6


def test_a_drawing_in_ink_has_no_red_tongue() -> None:
    colour = column(6.0, torch.tensor([[0.8, 0.8, 0.8, 0.0, 0.0, 0.0, 0.0]]))
    assert colour.std(0).max() < 1e-6


def test_a_slit_is_darker_than_an_open_mouth() -> None:
    assert column(6.0, open_by=0.2).mean() < column(6.0).mean()


def test_a_pale_film_has_no_black_throat() -> None:
    pale = DAY + torch.tensor([0.0, 0, 0, 0.2, 0.2, 0.2, 0])
    assert float(column(6.0, pale).min()) > 0.2 > float(column(6.0).min()) + 0.1
    assert torch.allclose(column(6.0, pale).max(), column(6.0).max(), atol=0.06)  # teeth are as white


def test_light_is_as_bright_and_as_coloured_as_the_face() -> None:
    face = torch.rand(1, 3, 160, 128, generator=torch.Generator().manual_seed(0)) * 0.2
    face = face + torch.tensor([0.6, 0.4, 0.3]).view(1, 3, 1, 1)
    day, dusk, ink = (
        face_light(2 * x - 1)[0] for x in (face, face / 2, face.mean(1, keepdim=True).expand(-1, 3, -1, -1))
    )
    assert torch.allclose(dusk[:3], day[:3] / 2, rtol=0.05)
    assert 1 < day[0] / day[2] < 0.7 / 0.4  # some of the skin's hue, not all of it
    assert day[6] > 0.9 and ink[6] < 0.01


def test_light_is_the_same_whatever_is_worn_below_the_chin() -> None:
    face = torch.rand(1, 3, 160, 128, generator=torch.Generator().manual_seed(0)) - 0.5
    shirt = face.clone()
    shirt[..., 110:, :] = 1
    assert torch.equal(face_light(face), face_light(shirt))


def test_teeth_are_rigid_bodies() -> None:
    """What the decoder says of places is noise far from the mouth and bent within; the nearest arch is neither."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(112.0), torch.arange(128.0), indexing="ij")
    true = torch.stack([(x - 60 + 0.1 * y) / 22, (y - 50 - 0.1 * x) / 4])[None]
    gap, inside = torch.full_like(true[:, :1], 2.0), torch.zeros_like(true[:, :1])
    inside[..., 54:60, 40:80] = 1
    far = torch.ones_like(inside)
    far[..., 48:66, 34:86] = 0
    noise = (0.2 + 20 * far) * torch.randn(true.shape, generator=generator)
    place, wide = fit_rigid(true + noise, gap + noise[:, :1], inside)
    assert float((place - true).abs()[..., 48:66, 34:86].max()) < 0.15
    assert float((wide - 2).abs().max()) < 0.05 and float(wide.std()) < 1e-5
    assert torch.isfinite(fit_rigid(true, gap, 0 * inside)[0]).all()  # a closed mouth


def test_tall_teeth_are_two_rows() -> None:
    """A decoder that takes both rows of clenched teeth for one says places that change half as fast."""
    y, x = torch.meshgrid(torch.arange(112.0), torch.arange(128.0), indexing="ij")
    tall = torch.stack([(x - 60) / 22, (y - 56) / 9])[None]
    inside = torch.zeros_like(tall[:, :1])
    inside[..., 52:60, 44:76] = 1
    place, _ = fit_rigid(tall, 0 * inside, inside)
    across, down = place[0, 0, 56, 61] - place[0, 0, 56, 60], place[0, 1, 57, 60] - place[0, 1, 56, 60]
    assert abs(float(across) - 1 / 22) < 0.003 and 0.12 < float(down) < 0.244


def test_who_bares_teeth_has_no_second_row_and_made_up_ones_look_like_them() -> None:
    bared = torch.zeros(2, 1, 160, 128)
    bared[0, :, 90:98, 44:84] = 1
    unknown = unknown_teeth(bared)
    assert unknown[0, 0, 94, 60] == 1 and unknown[0, 0, 99, 60] == 1 and unknown[0, 0, 103, 60] == 0
    assert (unknown[1] == 1).all()  # closed lips
    source = torch.zeros(2, 3, 160, 128)
    source[0, :, 90:98, 44:84] = torch.tensor([0.5, 0.4, 0.2]).view(3, 1, 1)
    light = light_on_teeth(DAY.expand(2, -1), source, bared)
    assert torch.allclose(light[0, :3] * torch.tensor(ENAMEL), torch.tensor([0.75, 0.7, 0.6]), atol=1e-3)
    assert torch.equal(light[1], DAY[0]) and torch.equal(light[0, 3:], DAY[0, 3:])
    faint = torch.full_like(bared, 0.1)  # a decoder is never quite sure
    assert torch.equal(light_on_teeth(DAY.expand(2, -1), source, faint), DAY.expand(2, -1))


def test_no_teeth_go_on_beyond_their_picture() -> None:
    for texels in (1, 4, 6, 7):
        upper = upper_teeth(place(), coarse(teeth(), texels))[0, 3, :, 4]
        assert not upper[place()[0, 1, :, 0] > 1.25].any()


def test_a_hole_is_less_open_at_its_edge_than_in_its_middle() -> None:
    inside = torch.zeros(1, 1, 12, 12)
    inside[..., 3:9, 3:9] = 1
    opened = opening(inside)[0, 0]
    assert float(opened[3, 3]) < float(opened[6, 6]) < 1 and float(opening(torch.ones_like(inside)).min()) == 1


def test_coarse_teeth_are_the_mean_of_fine_ones() -> None:
    fine = torch.rand(4, 16, 32, generator=torch.Generator().manual_seed(0))
    assert coarse(fine, 4).shape == (4, 4, 8) and torch.allclose(coarse(fine, 4).mean(), fine.mean())
    assert torch.equal(coarse(fine, 1), fine)


def test_upper_teeth_end_at_their_edges() -> None:
    shown = upper_teeth(place(), teeth())[0, 3, :, 4]
    down = place()[0, 1, :, 0]
    assert (shown[down < 0.9] > 0.99).all() and (shown[down > 1.1] < 0.01).all()
