import pytest
import torch

from skyreels_audio.generation.corners import round_corners
from skyreels_audio.models.motion_autoencoder import warp

HEIGHT, WIDTH, MIDDLE = 96, 128, 48.0


def mouth(gap_W: torch.Tensor) -> torch.Tensor:
    """Inside of a mouth that is so far open in each column [H, W]."""
    y_H1 = torch.arange(HEIGHT)[:, None] + 0.5
    return (gap_W / 2 - (y_H1 - MIDDLE).abs() + 0.5).clamp(0, 1)


def across() -> torch.Tensor:
    """-1 to 1 from one corner of the mouth to the other [W]."""
    return (torch.arange(WIDTH) + 0.5 - WIDTH / 2) / 32


def rounded(inside_HW: torch.Tensor) -> torch.Tensor:
    return warp(inside_HW[None, None], round_corners(inside_HW)[None])[0, 0]


SHAPES = {
    "slot": lambda t: 14.0 * (t.abs() < 1),
    "triangle": lambda t: 14.0 * (1 - t.abs()).clamp(min=0),
    "lens": lambda t: 14.0 * (1 - t.square()).clamp(min=0),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_open_mouth_is_as_round_as_a_lens(shape):
    shown_HW = mouth(SHAPES[shape](across()))
    gap_W, t = rounded(shown_HW).sum(0), across().abs()
    assert gap_W.max() == pytest.approx(float(shown_HW.sum(0).max()), abs=0.6)  # as far open as before
    assert 0.62 < gap_W[(t - 0.5).abs() < 0.03].mean() / gap_W.max() < 0.8  # a lens: 0.75, a slot 1, a triangle 0.5
    assert gap_W[(t > 0.9) & (t < 1)].mean() < 0.35 * gap_W.max()
    assert gap_W[t > 1.1].max() < 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_folds_and_what_is_far_stays(shape):
    across_HW, down_HW = round_corners(mouth(SHAPES[shape](across())))
    assert not across_HW.any()
    assert (1 + down_HW.diff(dim=0)).min() > 0  # a row below another is taken from below it
    assert not down_HW[:8].any() and not down_HW[-8:].any()


def test_a_mouth_that_hardly_opens_stays_as_it_is():
    assert not round_corners(mouth(torch.zeros(WIDTH))).any()
    assert not round_corners(mouth(1.2 * (across().abs() < 1))).any()


def test_it_comes_and_goes_without_a_jump():
    gaps = torch.linspace(0, 8, 81)
    shifts = torch.stack([round_corners(mouth(gap * (across().abs() < 1))) for gap in gaps])
    assert shifts.diff(dim=0).abs().max() < 0.35  # pixels, for a tenth of a pixel that lips part
