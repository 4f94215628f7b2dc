"""The linear sync expert, and the weights of it that ship."""

import numpy as np
import pytest
import torch

from skyreels_audio.evaluation.held_out import portrait, speaking_motion, true_video, voice
from skyreels_audio.evaluation.subjects import drawn
from skyreels_audio.faces import face_box
from skyreels_audio.models.sync_expert import LinearSync, load_sync_expert, windows_of
from skyreels_audio.models.syncnet import face_crops
from skyreels_audio.synthetic.render import Renderer


def test_a_clip_in_pieces_is_the_clip():
    torch.manual_seed(0)
    expert = LinearSync(embedding=4)
    faces = torch.randint(0, 255, (130, 96, 96, 3), dtype=torch.uint8)
    whole = expert.embed_pictures(expert.crop(faces[None]))[0]
    torch.testing.assert_close(expert.embed_clip(faces), whole)
    assert whole.shape == (126, 4)


def test_light_and_microphones_say_nothing():
    torch.manual_seed(0)
    expert = LinearSync(embedding=4)
    pictures, heard = 200 * torch.rand(1, 3, 20, 64, 64), torch.randn(1, 13, 80)
    lighter = pictures + 40 * torch.rand(1, 1, 20, 1, 1)
    torch.testing.assert_close(expert.embed_pictures(lighter), expert.embed_pictures(pictures), atol=1e-4, rtol=0)
    other = heard + torch.randn(1, 13, 1)
    torch.testing.assert_close(expert.embed_audio(other), expert.embed_audio(heard), atol=1e-4, rtol=0)
    assert expert.embed_audio(heard).shape == expert.embed_pictures(pictures).shape


def test_windows_hold_five_frames_one_after_the_other():
    values = torch.arange(14.0).view(1, 7, 2)
    assert torch.equal(windows_of(values)[0, 1], torch.arange(2.0, 12.0))


@pytest.fixture(scope="module")
def spoken() -> tuple[np.ndarray, np.ndarray]:
    """Crops [F, H, W, 3] of somebody who was never seen, and what they say in a voice never heard."""
    renderer = Renderer(192)
    subject, _ = drawn("test", 1, "realistic")
    said = voice(1, 3.0)
    _, landmarks = portrait(renderer, subject)
    shown, _ = true_video(renderer, subject, speaking_motion(said, 1))
    return face_crops(shown.frames, np.tile(face_box(landmarks), (len(shown.frames), 1))), said.waveform


@pytest.mark.parametrize("late", [-6, 0, 6])
def test_what_ships_tells_by_how_much_the_sound_is_late(spoken, late):
    crops, sound = spoken
    moved = np.roll(np.pad(sound, 16000), 640 * late)[16000 : 16000 + len(sound)]
    assert abs(load_sync_expert().offset_and_confidence(crops, moved).offset - late) <= 1


def test_evaluation_and_curation_ask_it_where_no_public_weights_are_given():
    from skyreels_audio.curation.synchrony import Synchrony
    from skyreels_audio.evaluation.measure import sync_expert

    stage = Synchrony(method="expert")
    stage.check()
    assert isinstance(sync_expert(None), LinearSync) and isinstance(stage._expert, LinearSync)
