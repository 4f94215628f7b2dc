"""What a face in a video does is read as codes that move its picture alike."""

import numpy as np
import pytest
import torch

from skyreels_audio import faces
from skyreels_audio.bundled import bundled
from skyreels_audio.evaluation.lips import correlation
from skyreels_audio.evaluation.motion import track_landmarks
from skyreels_audio.faces.align import placement
from skyreels_audio.generation.compositing import Aligned, Compositor
from skyreels_audio.media import InputError, read_image
from skyreels_audio.models.motion_autoencoder import CHANNELS, REST, unpack
from skyreels_audio.training.encode import Encoders

FRAMES = 33


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    return Encoders(bundled("weights/tiny"), torch.device("cpu"), 25.0)


def test_codes_that_moved_a_picture_are_read_from_the_video(encoders: Encoders) -> None:
    """Half of the video is still, in the other half the jaw opens three times and the head nods."""
    picture = read_image(bundled("examples/portrait.jpg"))
    wave = np.sin(np.linspace(0, 3 * np.pi, FRAMES // 2)) ** 2
    codes_FN = torch.tensor(REST).repeat(FRAMES, 1)
    codes_FN[-len(wave) :, CHANNELS.index("keepMouth")] = 0
    codes_FN[-len(wave) :, CHANNELS.index("jawOpen")] = torch.from_numpy(0.5 * wave).float()
    codes_FN[-len(wave) :, CHANNELS.index("pitch")] = torch.from_numpy(0.1 * wave).float()
    face = faces.detect_faces(picture)[0]
    aligned = Aligned(picture, placement(face.landmarks, (256, 256)), (256, 256))
    frames = np.stack(list(Compositor(aligned, encoders.vae).frames(codes_FN)))

    latents_CT11 = encoders.motion(frames, track_landmarks(frames))
    mean, std = (torch.tensor(values).view(-1, 1, 1, 1) for values in
                 (encoders.vae.config.latents_mean, encoders.vae.config.latents_std))  # fmt: skip
    read_FN = unpack((latents_CT11 * std + mean)[None])[0].numpy()
    assert np.allclose(read_FN[0], REST, atol=1e-5)
    for name, size in (("jawOpen", 0.5), ("pitch", 0.1)):
        read = read_FN[:, CHANNELS.index(name)]
        assert correlation(read, codes_FN[:, CHANNELS.index(name)].numpy()) > 0.9, name
        assert 0.6 * size < np.ptp(read[1:]) < 1.5 * size, name


def test_a_face_that_is_lost_is_said(encoders: Encoders) -> None:
    points_F682 = np.zeros((5, 68, 2), np.float32)
    points_F682[2] = np.nan
    with pytest.raises(ValueError, match="not seen in every frame"):
        encoders.motion(np.zeros((5, 256, 256, 3), np.uint8), points_F682)


def test_motion_is_read_at_its_own_rate() -> None:
    with pytest.raises(InputError, match="25 codes of motion a second"):
        Encoders(bundled("weights/tiny"), torch.device("cpu"), 30.0)
