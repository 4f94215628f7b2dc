"""Real teeth on the rig's upper arch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from skyreels_audio.faces import detect_faces
from skyreels_audio.media import read_image
from skyreels_audio.models.inner_mouth import face_light
from skyreels_audio.models.motion_autoencoder import FACE_CHANNELS
from skyreels_audio.synthetic import teeth
from skyreels_audio.synthetic.mouth import seat
from skyreels_audio.synthetic.pairs import FRAMES, PairFactory
from skyreels_audio.synthetic.photograph import INNER_LOWER, INNER_UPPER
from skyreels_audio.synthetic.rig import ACTIONS, Rig
from skyreels_audio.synthetic.teeth import ACROSS, DOWN, teeth_of, usual_teeth

PORTRAIT = Path(__file__).parents[1] / "faces" / "portrait.jpg"


def test_usual_teeth_are_alike_on_both_sides() -> None:
    usual = usual_teeth()
    assert usual.shape == (4, DOWN, ACROSS) and usual.min() >= 0 and usual.max() < 1.2
    assert np.allclose(usual, usual[..., ::-1], atol=1e-5)  # what is mirrored in training stays what it was
    assert not usual[3, -1].any() and usual[3, DOWN // 2, ACROSS // 8 : -ACROSS // 8].min() > 0.99
    middle = usual[:3, DOWN // 3 : -DOWN // 3, ACROSS // 3 : -ACROSS // 3].mean()
    assert middle > 1.5 * usual[:3, DOWN // 3 : -DOWN // 3, : ACROSS // 12].mean()  # dark corners


def test_closed_lips_give_no_teeth_and_open_ones_what_is_between_them(monkeypatch) -> None:
    assert teeth_of(PORTRAIT) is None
    image = read_image(PORTRAIT)
    face = detect_faces(image)[0]
    points = face.landmarks.copy()
    points[INNER_LOWER, 1] += 0.06 * (face.box_xyxy[3] - face.box_xyxy[1])
    shown = Image.fromarray(image)
    ImageDraw.Draw(shown).polygon([tuple(p) for p in points[INNER_UPPER + INNER_LOWER[::-1], :2]], fill=(75, 72, 68))
    monkeypatch.setattr(teeth, "detect_faces", lambda picture: [replace(face, landmarks=points)])
    monkeypatch.setattr(teeth, "read_image", lambda path: np.asarray(shown))
    seen = teeth_of(Path("smiling"))
    assert seen is not None
    middle = seen[:, ACROSS // 3 : -ACROSS // 3]
    left, top, right, bottom = face.box_xyxy.clip(0).astype(int)
    box = torch.from_numpy(np.asarray(shown)[top:bottom, left:right].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    wanted = np.array([75, 72, 68]) / 255 / face_light(box)[0, :3].numpy()
    assert np.abs(middle.mean((0, 1)) - wanted).max() < 0.03


@pytest.mark.parametrize("owner", [True, False])
def test_only_mouths_change_and_nobody_must_paint_what_their_owner_alone_knows(owner: bool, monkeypatch) -> None:
    pytest.importorskip("moderngl")
    from skyreels_audio.synthetic import pairs

    curves = np.zeros((400, 9), np.float32)
    curves[:, 0] = 0.4 - 0.4 * np.cos(np.arange(400) / 9)
    factory = PairFactory([curves], [], seed=0, split="train")
    black = np.zeros((DOWN, ACROSS, 3))
    monkeypatch.setattr(factory, "_own_teeth", lambda rng: black if owner else None)
    seen = {}
    lay = pairs.lay_inside

    def watch(frames, inside, place_32, gap_T, box, teeth):
        seen["before"], seen["inside"] = frames, inside
        seen["after"] = lay(frames, inside, place_32, gap_T, box, teeth)
        seen["laid"] = teeth
        return seen["after"]

    monkeypatch.setattr(pairs, "lay_inside", watch)
    clip = next(clip for i in range(20) if (clip := factory.clip(i)) is not None)
    changed = (seen["before"] != seen["after"]).any(-1)
    assert changed.any() and not changed[seen["inside"] == 0].any()
    assert (seen["laid"][:3].max() == 0) == owner
    _, y, x = np.nonzero(clip.teeth_THW)
    place = np.stack([x + 0.5, y + 0.5, np.ones_like(x)], -1) @ clip.place_32
    assert len(place) and np.abs(place[:, 0]).max() < 1 and place[:, 1].max() < 1.1
    assert (clip.inside_THW[clip.teeth_THW] > 0.5).all()
    assert {0, 0.25, 0.5, 0.75, 1} == set(np.unique(clip.inside_THW).tolist())  # of four parts of a pixel
    jaw = clip.poses_TN[:, FACE_CHANNELS.index("jawOpen")]
    assert np.corrcoef(jaw, clip.gap_T)[0, 1] > 0.99  # the lower teeth hang on the jaw
    shown = clip.teeth_THW.sum((1, 2))
    if owner:
        times, more = pairs.UNSEEN
        assert all(shown[t] < times * shown[s] + more for s, t in zip(clip.sources_P, clip.targets_P, strict=True))
    else:
        assert len(clip.sources_P) == FRAMES - 1 + pairs.BETWEEN


def test_a_mouth_opens_to_an_oval_and_not_to_a_wedge() -> None:
    rig, jaw = Rig.load(), ACTIONS.index("jawOpen")
    _, deltas = seat(rig.template_V3, rig.deltas_KV3)
    opened = rig.landmarks((rig.template_V3 + deltas[jaw])[None])[0]
    left, right = opened[78], opened[308]
    lower = np.array([opened[i] for i in (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)])
    half = (right[0] - left[0]) / 2
    depth = (left[2] + right[2]) / 2 - lower[:, 2]
    ellipse = depth[5] * np.sqrt(np.clip(1 - (lower[:, 0] / half) ** 2, 0, 1))
    assert np.abs(depth - ellipse)[1:-1].max() < 0.15 * depth[5]
