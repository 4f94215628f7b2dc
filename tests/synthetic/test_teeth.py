"""Real teeth on the rig's upper arch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from skyreels_audio.faces import detect_faces
from skyreels_audio.media import read_image
from skyreels_audio.synthetic import teeth
from skyreels_audio.synthetic.pairs import FRAMES, PairFactory
from skyreels_audio.synthetic.photograph import INNER_LOWER, INNER_UPPER
from skyreels_audio.synthetic.teeth import ACROSS, DOWN, light_on_teeth, teeth_of, usual_teeth

PORTRAIT = Path(__file__).parents[1] / "faces" / "portrait.jpg"


def test_usual_teeth_are_alike_on_both_sides() -> None:
    usual = usual_teeth()
    assert usual.shape == (DOWN, ACROSS, 3) and usual.min() > 0 and usual.max() < 1.5
    assert np.abs(usual - usual[:, ::-1]).max() < 0.05  # what is mirrored in training stays what it was
    middle = usual[:, ACROSS // 3 : -ACROSS // 3].mean()
    assert middle > 1.5 * usual[:, : ACROSS // 12].mean()  # dark corners


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
    wanted = np.array([75, 72, 68]) / 255 / light_on_teeth(np.asarray(shown), face.box_xyxy)
    assert np.abs(middle.mean((0, 1)) - wanted).max() < 0.03


def test_teeth_are_lit_like_their_face() -> None:
    picture = read_image(PORTRAIT)
    box = np.array([100, 50, 300, 300])
    light = light_on_teeth(picture, box)
    assert (light > 1.5 * light_on_teeth(picture // 2, box)).all()
    warm, skin = light / light.mean(), picture[50:300, 100:300].mean((0, 1))
    assert 1 < warm[0] / warm[2] < skin[0] / skin[2]  # some of the skin's hue, not all of it


@pytest.mark.parametrize("owner", [True, False])
def test_only_teeth_change_and_nobody_must_paint_what_their_owner_alone_knows(owner: bool, monkeypatch) -> None:
    pytest.importorskip("moderngl")
    from skyreels_audio.synthetic import pairs

    curves = np.zeros((400, 9), np.float32)
    curves[:, 0] = 0.4 - 0.4 * np.cos(np.arange(400) / 9)
    factory = PairFactory([curves], [], seed=0, split="train")
    black = np.zeros((DOWN, ACROSS, 3))
    monkeypatch.setattr(factory, "_own_teeth", lambda rng: black if owner else None)
    monkeypatch.setattr(pairs, "usual_teeth", lambda: black)
    seen = {}
    lay = pairs.lay_teeth

    def watch(frames, teeth, *given):
        seen["before"], seen["teeth"] = frames, teeth
        seen["after"] = lay(frames, teeth, *given)
        return seen["after"]

    monkeypatch.setattr(pairs, "lay_teeth", watch)
    index = next(i for i in range(20) if factory.clip(i) is not None and "teeth" in seen)
    clip = factory.clip(index)
    assert clip is not None
    changed = (seen["before"] != seen["after"]).any(-1)
    assert changed.any() and not (changed & ~seen["teeth"]).any()
    _, y, x = np.nonzero(clip.teeth_THW)
    place = np.stack([x + 0.5, y + 0.5, np.ones_like(x)], -1) @ clip.teeth_place_32
    assert len(place) and np.abs(place[:, 0]).max() < 1 and place[:, 1].max() < 1.1
    shown = seen["teeth"].sum((1, 2))
    if owner:
        times, more = pairs.UNSEEN
        assert all(shown[t] < times * shown[s] + more for s, t in zip(clip.sources_P, clip.targets_P, strict=True))
    else:
        assert len(clip.sources_P) == FRAMES - 1 + pairs.BETWEEN
