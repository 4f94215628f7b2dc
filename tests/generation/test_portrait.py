from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from skyreels_audio.faces import detect_faces
from skyreels_audio.faces.align import placement
from skyreels_audio.faces.framing import EYES_TO_MOUTH, MOUTH_CENTRE, anchors, region_mask
from skyreels_audio.generation.inputs import frame_picture
from skyreels_audio.generation.portrait import Portrait
from skyreels_audio.generation.step import Batched, TransformerVelocity
from skyreels_audio.media import read_image

PICTURE = Path(__file__).parents[1] / "faces" / "portrait.jpg"


@pytest.fixture(scope="module")
def portrait() -> Portrait:
    return aligned(read_image(PICTURE), "mouth", (192, 256))


def aligned(picture: np.ndarray, region: str, size: tuple[int, int]) -> Portrait:
    faces = detect_faces(picture)
    assert faces
    return Portrait.align(picture, faces[0].landmarks, region, size)


def test_a_placement_puts_eyes_and_mouth_where_training_has_them():
    landmarks = np.zeros((68, 2), np.float32)
    landmarks[36:48], landmarks[[48, 54]] = (300, 200), (320, 290)
    place = placement(landmarks, (256, 256))
    eyes, mouth = (place[:, :2] @ p + place[:, 2] for p in _standing())
    assert np.allclose(eyes, (300, 200), atol=1e-3) and np.allclose(mouth, (320, 290), atol=1e-3)


def _standing():
    mouth = np.array(MOUTH_CENTRE) * 256
    return mouth - [0, EYES_TO_MOUTH * 256], mouth


def test_outside_the_mouth_the_picture_is_untouched(portrait):
    black = portrait.with_region_of(np.zeros_like(portrait.aligned))
    same = (black == portrait.picture).all(-1)
    assert 0.5 < same.mean() < 0.99
    assert same[:10].all() and same[:, :5].all()


def test_the_same_mouth_gives_the_same_picture(portrait):
    back = portrait.with_region_of(portrait.aligned).astype(float)
    assert np.abs(back - portrait.picture).mean() < 1


def test_aligned_face_stands_as_in_training(portrait):
    found = detect_faces(portrait.aligned)[0].landmarks
    assert np.abs(portrait.landmarks - found)[:, :2].mean() < 1  # found once, and carried along
    eyes, mouth = anchors(found)
    height, width = portrait.aligned.shape[:2]
    assert mouth == pytest.approx(np.array(MOUTH_CENTRE) * [width, height], abs=0.02 * height)
    assert np.linalg.norm(mouth - eyes) == pytest.approx(EYES_TO_MOUTH * height, rel=0.05)


@pytest.mark.parametrize("region", ["mouth", "face"])
@pytest.mark.parametrize("samples", [100, 16000])
def test_only_the_region_of_a_portrait_is_made_anew(pipeline, region, samples):
    picture = np.asarray(Image.open(PICTURE).convert("RGB").resize((96, 96)))
    voice = np.sin(np.arange(samples) / 9).astype(np.float32)
    options = {"image": picture, "audio": voice, "height": 96, "width": 96, "edit_region": region}
    frames = list(pipeline(generator=torch.Generator().manual_seed(0), **options).frames)
    assert len(frames) == (1 if samples == 100 else 25)
    framed = frame_picture(picture, (96, 96))
    assert framed.landmarks is not None
    found = Portrait.align(framed.picture_HWC, framed.landmarks, region, (32, 32))
    outside = (found.with_region_of(255 - found.aligned) == framed.picture_HWC).all(-1)
    assert 0.2 < outside.mean() < 1
    assert all((frame == framed.picture_HWC)[outside].all() for frame in frames)


@pytest.mark.parametrize("count", [25, 27])
def test_of_an_edited_video_only_the_region_is_computed(pipeline, count, monkeypatch):
    """Also when it ends within a latent."""
    shapes = set()
    velocity = TransformerVelocity(pipeline.transformer)

    def seen(latents_BCTHW, t, conditions):
        shapes.add(tuple(latents_BCTHW.shape[3:]))
        return velocity(latents_BCTHW, t, conditions)

    video = np.random.default_rng(0).integers(0, 256, (count, 128, 128, 3), dtype=np.uint8)
    known = np.repeat(~region_mask("mouth", (128, 128))[None], count, axis=0)
    voice = np.sin(np.arange(640 * count) / 9).astype(np.float32)
    options = {"height": 128, "width": 128, "edit_region": "mouth"}
    monkeypatch.setattr(pipeline, "executor", Batched(seen))
    output = pipeline(audio=voice, video=video, known=known, hybrid_steps=1, **options)
    assert len(list(output.frames)) == count
    assert shapes == {(4, 4)}
