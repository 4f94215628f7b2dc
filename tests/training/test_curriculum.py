import torch

from skyreels_audio.training.curriculum import Sample, compose, outside_boxes
from skyreels_audio.training.recipe import Curriculum
from tests.training.conftest import LATENTS, noise_clips


def sample(crop: int | None = None, seed: int = 0, drop: float = 0.0, editing: float = 0.0) -> Sample:
    options = Curriculum(drop=drop, editing=editing)
    return compose(noise_clips(32, 0), options, 2, crop, torch.Generator().manual_seed(seed))


def test_image_animation_gives_the_first_latent_alone():
    s = sample()
    assert bool((s.known_B1THW[:, :, 0] == 1).all()) and bool((s.known_B1THW[:, :, 1:] == 0).all())
    assert torch.equal(s.condition_BCTHW, s.clean_BCTHW * s.known_B1THW)


def test_editing_hides_exactly_the_lower_face():
    s = sample(editing=1.0)
    hidden = s.known_B1THW[:, 0, 1] == 0
    assert bool(hidden[:, 3:7, 2:6].all()) and hidden.sum() == 32 * 16


def test_box_touches_every_cell_it_overlaps():
    grid = torch.zeros(1, 1, 1, 8, 8)
    known = outside_boxes(torch.tensor([[[2.5, 3.9, 4.1, 5.0]]]), grid)[0, 0, 0]
    assert torch.equal((known == 0).nonzero().amin(0), torch.tensor([3, 2]))
    assert torch.equal((known == 0).nonzero().amax(0), torch.tensor([4, 4]))


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


def test_crop_keeps_the_lips_and_the_reference():
    s = sample(crop=4, drop=0.5)
    assert s.clean_BCTHW.shape[-2:] == (4, 4)
    assert bool((s.lips_B1THW.sum((1, 2, 3, 4)) > 0).all()) and bool((s.known_B1THW[:, :, 0] == 1).all())


def test_tokens_surround_the_window_they_speak_in():
    for seed in range(8):
        s = sample(seed=seed)
        assert (
            s.audio_positions_A[0] < s.video_positions_T[1] - 10
            and s.audio_positions_A[-1] > s.video_positions_T[-1] + 10
        )
        assert s.audio_BAD.shape[1] == len(s.audio_positions_A) and len(s.video_positions_T) == 2 <= LATENTS
