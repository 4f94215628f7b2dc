from dataclasses import replace

import pytest
import torch

from skyreels_audio.faces.framing import REGIONS, region_mask
from skyreels_audio.training.rendered.curriculum import Sample, compose
from skyreels_audio.training.rendered.recipe import Curriculum
from tests.training.rendered.conftest import LATENTS, noise_clips


def sample(region: str | None = None, seed: int = 0, drop: float = 0.0) -> Sample:
    options = Curriculum(drop=drop)
    return compose(noise_clips(32, 0), options, 2, region, torch.Generator().manual_seed(seed))


def test_image_animation_gives_the_first_latent_alone():
    s = sample()
    assert bool((s.known_B1THW[:, :, 0] == 1).all()) and bool((s.known_B1THW[:, :, 1:] == 0).all())
    assert torch.equal(s.condition_BCTHW, s.clean_BCTHW * s.known_B1THW)


@pytest.mark.parametrize("region", REGIONS)
def test_editing_hides_exactly_the_region(region):
    """And shows no more of the frame than the patches that it touches: on this grid of 8 × 8, columns 2 to 5."""
    s = sample(region)
    hidden = (s.known_B1THW[:, 0, 1] == 0).sum((1, 2))
    assert bool((hidden == region_mask(region, (8, 8)).sum()).all())
    assert s.clean_BCTHW.shape[-1] == 4 and s.clean_BCTHW.shape[-2] % 2 == 0
    assert bool((s.known_B1THW[:, :, 0] == 1).all())


def test_a_single_frame_comes_from_words_alone():
    clips = noise_clips(32, 0)
    frame = replace(clips, latents_NCTHW=clips.latents_NCTHW[:, :, :1], lips_NTHW=clips.lips_NTHW[:, :1])
    s = compose(frame, Curriculum(), 1, None, torch.Generator().manual_seed(0))
    assert s.known_B1THW.sum() == 0 and s.condition_BCTHW.abs().sum() == 0


def test_drops_are_independent_and_at_the_stated_rate():
    parts = [sample(drop=0.15, seed=i) for i in range(40)]
    text = torch.tensor([c == "" for p in parts for c in p.captions])
    audio = ~torch.cat([p.has_audio_B for p in parts])
    reference = torch.cat([p.known_B1THW.sum((1, 2, 3, 4)) == 0 for p in parts])
    for dropped in (text, audio, reference):
        assert 0.11 < dropped.float().mean() < 0.19
    assert (text & audio).float().mean() < 0.05


def test_dropped_audio_is_zero():
    s = sample(drop=0.5)
    silent = s.audio_BAD.abs().sum((1, 2)) == 0
    assert torch.equal(silent, ~s.has_audio_B)


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_keeps_the_lips_and_the_reference(region):
    s = sample(region, drop=0.5)
    assert bool((s.lips_B1THW.sum((1, 2, 3, 4)) > 0).all()) and bool((s.known_B1THW[:, :, 0] == 1).all())


def test_tokens_surround_the_window_they_speak_in():
    for seed in range(8):
        s = sample(seed=seed)
        assert (
            s.audio_positions_A[0] < s.video_positions_T[1] - 10
            and s.audio_positions_A[-1] > s.video_positions_T[-1] + 10
        )
        assert s.audio_BAD.shape[1] == len(s.audio_positions_A) and len(s.video_positions_T) == 2 <= LATENTS
