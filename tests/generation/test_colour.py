from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from skyreels_audio.faces import detect_faces
from skyreels_audio.generation.colour import lab_to_rgb, rgb_to_lab, still_region, unify_colours
from skyreels_audio.media import read_image


def scene(frame: int) -> np.ndarray:
    """A coloured picture in which a dark bar the size of a mouth opens and closes, and a little noise flickers."""
    y, x = np.mgrid[0:48, 0:48] / 48
    picture = np.stack([0.35 + 0.4 * x, 0.3 + 0.3 * y, 0.5 - 0.2 * x * y], axis=-1)
    picture[30 : 32 + int(4 * (1 + np.sin(frame))), 18:30] *= 0.4
    picture += np.random.default_rng(frame).normal(0, 0.01, picture.shape)
    return np.clip(255 * picture, 0, 255).round().astype(np.uint8)


def difference(frame: np.ndarray, other: np.ndarray) -> float:
    """Mean ΔE (CIE 1976)."""
    return float((rgb_to_lab(torch.tensor(frame)) - rgb_to_lab(torch.tensor(other))).norm(dim=-1).mean())


def brightness(frame: np.ndarray) -> float:
    return float(rgb_to_lab(torch.tensor(frame))[..., 0].mean())


def test_lab_of_known_colours():
    colours = torch.tensor([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]], dtype=torch.uint8)
    lab = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]
    torch.testing.assert_close(rgb_to_lab(colours), torch.tensor(lab), atol=0.02, rtol=0)


@settings(max_examples=20)
@given(arrays(np.uint8, (4, 5, 3)))
def test_lab_and_back(rgb):
    assert torch.equal(lab_to_rgb(rgb_to_lab(torch.tensor(rgb))), torch.tensor(rgb))


def test_a_darkening_minute_comes_back_without_flicker():
    steps = 300  # 60 s at every fifth frame
    true = [scene(i) for i in range(steps)]
    dark = [(frame * np.array([1, 0.985, 0.97]) ** (i / 100) * (1 - 0.4 * i / steps)) for i, frame in enumerate(true)]
    dark = [frame.round().astype(np.uint8) for frame in dark]
    assert difference(dark[-1], true[-1]) > 15
    unified = list(unify_colours(iter(dark), true[0]))
    assert len(unified) == steps
    assert max(difference(frame, original) for frame, original in zip(unified, true, strict=True)) < 2
    jumps = np.abs(np.diff([brightness(u) - brightness(o) for u, o in zip(unified, true, strict=True)]))
    assert jumps.max() < 0.3  # of 100, added by the correction from one frame to the next; an eye sees 1


def test_what_need_not_change_stays():
    frames = [scene(0)] * 5
    assert all(difference(frame, frames[0]) < 0.3 for frame in unify_colours(frames, frames[0]))


def test_strength_goes_from_nothing_to_all():
    dark = [(scene(i) * 0.6).astype(np.uint8) for i in range(5)]
    none, half, full = (list(unify_colours(dark, scene(0), strength))[2] for strength in (0.0, 0.5, 1.0))
    assert (none == dark[2]).all()
    middle = (brightness(none) + brightness(full)) / 2
    assert abs(brightness(half) - middle) < 0.5 < brightness(full) - brightness(half)


def test_a_region_ignores_what_moves_elsewhere():
    region = np.zeros((48, 48), dtype=bool)
    region[:24] = True
    frames = [scene(0) for _ in range(5)]
    for frame in frames:
        frame[24:] = 250
    unified = next(unify_colours(frames, scene(0), region_HW=region))
    assert difference(unified[:24], scene(0)[:24]) < 0.3


def test_frames_come_out_while_others_still_come_in():
    taken = []

    def source():
        for i in range(10_000):
            taken.append(i)
            yield scene(0)

    unified = unify_colours(source(), scene(0), radius=3)
    for _ in range(20):
        next(unified)
    assert len(taken) == 20 + 3


def test_colours_are_measured_beside_the_mouth():
    picture = read_image(Path(__file__).parents[1] / "faces" / "portrait.jpg")
    region = still_region(detect_faces(picture)[0].landmarks, picture.shape[:2])
    assert region is not None and 0.5 < region.mean() < 0.95
    opened = picture.copy()
    opened[~region] = 0
    unified = next(unify_colours([opened], picture, region_HW=region))
    assert difference(unified[region][None], picture[region][None]) < 0.3
    assert still_region(None, (64, 64)) is None
