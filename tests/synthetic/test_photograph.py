import numpy as np
import pytest

from skyreels_audio.faces import detect_faces, lip_aperture
from skyreels_audio.synthetic.appearance import sample_appearance
from skyreels_audio.synthetic.background import Background
from skyreels_audio.synthetic.motion import Motion
from skyreels_audio.synthetic.person import dress
from skyreels_audio.synthetic.photograph import CLOSED, animate_photograph, split, suitable
from skyreels_audio.synthetic.render import Renderer
from skyreels_audio.synthetic.rig import ACTIONS

SIZE = 192


def motion(*weights: dict[str, float]):
    zero = np.zeros((len(weights), 3), np.float32)
    weights_TK = np.array([[row.get(action, 0) for action in ACTIONS] for row in weights], np.float32)
    return Motion(weights_TK, zero, zero, zero[:, :2])


@pytest.fixture(scope="module")
def renderer():
    return Renderer(SIZE)


@pytest.fixture(scope="module")
def portraits(renderer):
    """A drawn person's portrait, lips closed, parted and wide open, to stand for a photograph."""
    identity = renderer.rig.identity(0)
    wall = Background(np.full((8, 8, 3), 180, np.uint8), "plain", "grey")
    subject = dress(renderer.rig, identity, sample_appearance(0, identity), wall)
    return renderer.render(subject, motion({}, {"jawOpen": 0.3}, {"jawOpen": 1.0})).frames


def test_at_rest_it_is_the_photograph(renderer, portraits):
    subject = animate_photograph(portraits[0], detect_faces(portraits[0])[0], (SIZE, SIZE))
    frame = renderer.render(subject, motion({})).frames[0].astype(float)
    error = np.mean((frame - subject.background.picture.astype(float)) ** 2)
    assert 10 * np.log10(255**2 / error) > 32


def test_speaking_moves_the_mouth_and_spares_the_rest(renderer, portraits):
    subject = animate_photograph(portraits[0], detect_faces(portraits[0])[0], (SIZE, SIZE))
    clip = renderer.render(subject, motion({}, {"jawOpen": 0.6}))
    change = np.abs(clip.frames[1].astype(int) - clip.frames[0]).max(-1)
    left, top, right, bottom = clip.lower_face_box_T4[1].round().astype(int)
    assert change[: top - SIZE // 20].mean() < 0.02 * change[top:bottom, left:right].mean()
    assert clip.lip_mask[1].sum() > 1.4 * clip.lip_mask[0].sum()


def test_its_labels_are_where_the_detector_finds_them(renderer, portraits):
    face = detect_faces(portraits[0])[0]
    subject = animate_photograph(portraits[0], face, (SIZE, SIZE))
    rendered = renderer.render(subject, motion({}))
    found = detect_faces(rendered.frames[0])[0].landmarks[:468, :2]
    assert np.median(np.linalg.norm(found - rendered.mesh_TL2[0], axis=1)) < 0.02 * SIZE


def test_parted_lips_are_not_animated(portraits):
    """What they hide is not known, and torn lips were the worst that a model was shown."""
    face = detect_faces(portraits[1])[0]
    assert lip_aperture(face.landmarks) > CLOSED and not suitable(face)


def test_a_wide_open_mouth_cannot_speak(portraits):
    face = detect_faces(portraits[2])[0]
    assert not suitable(face)
    with pytest.raises(ValueError, match="nearly closed"):
        animate_photograph(portraits[2], face)


def test_a_person_is_in_one_split_only():
    assert split("webmorph-neutral-012_03.jpg") == split("webmorph-smiling-012_08.jpg")
    assert split("official-us-senate-mike-dewine.jpg") == split("official-us-governors-michael-dewine.jpg")
    splits = [split(f"webmorph-3dsk-{n}.jpg") for n in range(1000)]
    assert 60 < splits.count("test") < 150
