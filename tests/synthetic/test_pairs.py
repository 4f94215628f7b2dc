"""Pairs of frames: the flow is exact, and what is not visible is not claimed to be."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from skyreels_audio.models.motion_autoencoder import FACE_CHANNELS
from skyreels_audio.synthetic.pairs import PairClip, PairFactory, blend, flow_between

KEEP = FACE_CHANNELS.index("keepMouth")


@pytest.fixture(scope="module")
def clip() -> PairClip:
    pytest.importorskip("moderngl")
    curves = np.zeros((400, 9), np.float32)
    curves[:, 0] = 0.4 - 0.4 * np.cos(np.arange(400) / 9)
    made = PairFactory([curves], [], seed=0, split="train").clip(3)
    assert made is not None
    return made


def test_the_source_moved_by_the_flow_is_the_target(clip: PairClip) -> None:
    """But for shading, which a drawn face changes as it moves, and for what the source hides."""
    for pair in range(len(clip.codes_PN)):
        source, target = (clip.frames_THWC[i[pair]].astype(float) for i in (clip.sources_P, clip.targets_P))
        flow, visible = clip.flow_PHW2[pair] / 64, clip.visible_PHW[pair]
        y, x = np.mgrid[: source.shape[0], : source.shape[1]]
        inside = visible & (y + flow[..., 1] > 0) & (y + flow[..., 1] < source.shape[0] - 1)
        moved = [map_coordinates(source[..., c], [y + flow[..., 1], x + flow[..., 0]], order=1) for c in range(3)]
        error = np.abs(np.stack(moved, -1) - target).mean(-1)[inside]
        assert np.median(error) < 3 and error.mean() < 8, pair


def test_most_of_a_face_is_visible_and_an_opened_mouth_is_not(clip: PairClip) -> None:
    assert clip.visible_PHW.mean() > 0.9
    jaw = FACE_CHANNELS.index("jawOpen")
    opened = [
        p
        for p in range(len(clip.codes_PN))
        if clip.poses_TN[clip.targets_P[p], jaw] > clip.poses_TN[clip.sources_P[p], jaw] + 0.2
    ]
    assert opened and all((~clip.visible_PHW[p]).sum() > 20 for p in opened)


def test_a_clip_is_the_same_whenever_it_is_made(clip: PairClip) -> None:
    curves = np.zeros((400, 9), np.float32)
    curves[:, 0] = 0.4 - 0.4 * np.cos(np.arange(400) / 9)
    again = PairFactory([curves], [], seed=0, split="train").clip(3)
    assert again is not None and np.array_equal(again.frames_THWC, clip.frames_THWC)


def test_keeping_all_shows_the_source_and_keeping_nothing_the_code() -> None:
    rng = np.random.default_rng(0)
    code, source = rng.uniform(size=(2, len(FACE_CHANNELS))).astype(np.float32)
    code[-2:] = 1
    assert np.allclose(blend(code, source)[:-2], source[:-2])
    code[-2:] = 0
    assert np.allclose(blend(code, source)[:-2], code[:-2])


def test_what_another_surface_covers_in_the_source_is_hidden() -> None:
    height, width = 8, 8
    y, x = np.mgrid[:height, :width] + 0.5
    still = np.stack([x, y, np.zeros_like(x), np.ones_like(x)], -1).astype(np.float32)
    covered = still.copy()
    covered[2:4, 2:4, 3] = 4  # teeth stand there in the source
    _, visible = flow_between(covered, still, near=0.01)
    assert not visible[2:4, 2:4].any() and visible[5:, 5:].all()
