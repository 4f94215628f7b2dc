"""Motion applied to pictures: at rest they are themselves, and what is not the face stays as it was."""

import numpy as np
import pytest
import torch

from skyreels_audio.bundled import bundled
from skyreels_audio.faces import detect_faces
from skyreels_audio.faces.align import placement
from skyreels_audio.generation.codes import (
    HARDLY,
    HEAD,
    KEEP_EYES,
    KEEP_MOUTH,
    PURSES,
    ROUND,
    ROUNDS,
    WIDER,
    at_most,
    at_times,
    close,
    keep_smile,
    part_pursed,
    part_surely,
    parted,
    scale_motion,
    speak_as_wide,
    steady_head,
    wider,
)
from skyreels_audio.generation.compositing import Aligned, Compositor, edit_mouth
from skyreels_audio.generation.face_decoder import INSIDE, PARTS, TEETH, UNKNOWN, hidden_teeth
from skyreels_audio.media import read_image
from skyreels_audio.models.motion_autoencoder import CHANNELS, REST, MotionAutoencoder

PLACE = np.array([[1.5, 0.1, 40.0], [-0.1, 1.5, 30.0]])  # crop → picture: larger, turned a little, off the corner


@pytest.fixture(scope="module")
def vae() -> MotionAutoencoder:
    torch.manual_seed(0)
    model = MotionAutoencoder(widths=(8, 12, 16, 24), code_width=16).eval()
    for module in model.decoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=0.05)
    return model


@pytest.fixture(scope="module")
def aligned() -> Aligned:
    picture = np.random.default_rng(0).integers(0, 256, (470, 500, 3), np.uint8)
    return Aligned(picture, PLACE, (256, 256))


def code(**changes: float) -> torch.Tensor:
    values = torch.tensor(REST)
    for name, value in changes.items():
        values[CHANNELS.index(name)] = value
    return values


def test_a_face_at_rest_is_its_picture(vae: MotionAutoencoder, aligned: Aligned) -> None:
    (frame,) = Compositor(aligned, vae).frames([code()])
    assert np.array_equal(frame, aligned.picture_hw3)


def test_a_blink_shuts_the_eyes_of_the_picture(vae: MotionAutoencoder) -> None:
    """What it changes lies around the eyes: lids are the picture's skin, and the decoder hears nothing of a blink."""
    picture = read_image(bundled("examples/portrait.jpg"))
    (face,) = detect_faces(picture)
    place = placement(face.landmarks, (256, 256))
    compositor = Compositor(Aligned(picture, place, (256, 256), landmarks=face.landmarks), vae, head=False)
    open_, shut = compositor.frames([code(keepEyes=0.0), code(keepEyes=0.0, eyeBlink=1.0)])
    rows, columns = np.nonzero((open_ != shut).any(-1))
    eyes = face.landmarks[[33, 133, 362, 263], :2]
    reach = 0.8 * np.linalg.norm(eyes[1] - eyes[0])
    assert len(rows) > 500
    assert eyes[:, 1].min() - reach < rows.min() and rows.max() < eyes[:, 1].max() + reach
    assert eyes[:, 0].min() - reach < columns.min() and columns.max() < eyes[:, 0].max() + reach


def test_an_edit_of_the_mouth_stays_in_its_part(vae: MotionAutoencoder, aligned: Aligned) -> None:
    frame = edit_mouth(aligned, code(jawOpen=1.0), vae)
    changed = np.argwhere((frame != aligned.picture_hw3).any(-1))
    assert len(changed)
    left, top, right, bottom = np.array(vae.config.box) * 256
    top += vae.config.mouth[0]
    back = (changed[:, ::-1] + 0.5 - PLACE[:, 2]) @ np.linalg.inv(PLACE[:, :2]).T
    assert np.all(back.min(0) >= [left - 1, top - 1]) and np.all(back.max(0) <= [right + 1, bottom + 1])


@pytest.mark.parametrize("scale", [0.7, 2.0, 4.0])
def test_where_nothing_is_painted_nothing_changes(vae: MotionAutoencoder, scale: float) -> None:
    """Edges of paint are as steep as the picture is large, and end: beyond them there is none, not a little."""
    picture = np.random.default_rng(1).integers(0, 256, (round(256 * scale), round(256 * scale), 3), np.uint8)
    aligned = Aligned(picture, np.diag([scale, scale, 1.0])[:2], (256, 256))
    motion = moved_box()
    motion[2, 96:110, 40:88] = motion[7, 96:110, 40:88] = 1
    changed = (Compositor(aligned, vae, head=False).frame(code(), motion) != picture).any(-1)
    rows, columns = np.nonzero(changed)
    left, top = np.array(vae.config.box[:2]) * 256
    near = 24  # pixels of the box in which skin follows lips
    assert top + 96 - near < rows.min() / scale and rows.max() / scale < top + 110 + near
    assert left + 40 - near < columns.min() / scale and columns.max() / scale < left + 88 + near


def test_lips_of_a_portrait_part_wider_than_is_said() -> None:
    said = torch.stack([code(keepMouth=0.0, jawOpen=0.2, mouthFunnel=0.1), code()])
    assert torch.allclose(parted(wider(said)), WIDER * parted(said), atol=1e-6)
    assert torch.equal(wider(said)[1], said[1])


def test_lips_are_apart_or_closed() -> None:
    """As far as is seen, what a picture's own mouth keeps counted; whoever is wide open is as wide as was said.

    What a pucker takes from it counts, too.
    """
    for keep, pucker in ((0.0, 0.0), (0.4, 0.0), (0.2, 0.9)):
        jaws = np.linspace(0, 0.6, 61)
        said = torch.stack([code(jawOpen=jaw, keepMouth=keep, mouthPucker=pucker) for jaw in jaws])
        before, after = ((1 - keep) * parted(codes) for codes in (said, part_surely(said)))
        least, most = (bound + (1 - keep) * PURSES * pucker for bound in HARDLY)
        assert not after[before <= least].any() and torch.allclose(after[before >= most], before[before >= most])
        assert (after.diff() >= 0).all() and (after <= before + 1e-6).all()


def test_pursed_lips_are_apart_for_sure_or_not_at_all() -> None:
    """Only those: lips that are shut, further open, or not round stay as they are; and nothing jumps on the way."""

    def parted_by(jaw: float, pucker: float) -> tuple[float, float]:
        said = torch.stack([code(keepMouth=0.2, jawOpen=jaw, mouthPucker=pucker)])
        done = part_pursed(said)
        assert torch.equal(done[:, 1:], said[:, 1:])
        before, after = (0.8 * (parted(codes) - PURSES * pucker).item() for codes in (said, done))
        return before, after

    jaws = np.linspace(0, 0.5, 101)
    own, pursed = np.array([parted_by(jaw, 0.9) for jaw in jaws]).T
    for same in (own < ROUNDS[0], own > ROUND):
        assert same.any() and np.allclose(pursed[same], own[same], atol=1e-6)
    assert (pursed[own > ROUNDS[1]] > ROUND - 1e-6).all() and (np.diff(pursed) > -1e-6).all()
    assert np.diff(pursed).max() < 0.006
    own, plain = np.array([parted_by(jaw, 0.1) for jaw in jaws]).T
    assert np.allclose(plain, own, atol=1e-6)


def test_a_bared_smile_is_kept_in_part_until_lips_meet() -> None:
    speaking, pressed = code(jawOpen=0.5, keepMouth=0.2), code(mouthPress=0.4, keepMouth=0.0)
    codes = torch.stack([speaking, pressed, code()])
    assert torch.equal(keep_smile(codes, 0.0), codes)
    kept = keep_smile(codes, 0.08)[:, CHANNELS.index("keepMouth")]
    assert 0.2 < kept[0] < 0.5 and kept[1] == 0 and kept[2] == 1


def moved_box() -> torch.Tensor:
    """A motion of a box of 160 × 128 at rest, over the crop's upper teeth at its middle."""
    motion = torch.zeros(len(PARTS), 160, 128)
    y, x = torch.meshgrid((torch.arange(160) - 104) / 8, (torch.arange(128) - 63.5) / 32, indexing="ij")
    motion[3], motion[8], motion[9], motion[12], motion[13] = 1, x, y, 1, 1
    return motion


def test_teeth_are_as_fine_as_the_picture(vae: MotionAutoencoder) -> None:
    """64 stripes over 64 pixels of the box, which it could not hold, are there in a picture of four times its size."""
    picture = np.full((1024, 1024, 3), 128, np.uint8)
    compositor = Compositor(Aligned(picture, np.array([[4.0, 0, 0], [0, 4.0, 0]]), (256, 256)), vae, head=False)
    compositor.teeth_4RS = torch.ones(4, 4, 128)
    compositor.teeth_4RS[:3] *= torch.tensor([1.0, 0.2]).repeat(64)
    motion = moved_box()
    motion[2, 96:110], motion[7, 96:110] = 1, 1
    row = compositor.frame(code(), motion)[4 * (88 + 104), 384:640, 0].astype(int)
    assert (np.diff(np.sign(row - row.mean())) != 0).sum() > 110


@pytest.mark.parametrize("red", [False, True])
def test_own_teeth_are_the_pixels_of_the_picture_in_their_place_unless_red(vae: MotionAutoencoder, red: bool) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1024, 1024, 1), np.uint8).repeat(3, 2)
    if red:  # a lip that was taken for teeth
        picture[..., 1:] //= 2
    compositor = Compositor(Aligned(picture, np.array([[4.0, 0, 0], [0, 4.0, 0]]), (256, 256)), vae, head=False)
    compositor.teeth_4RS = torch.ones(4, 4, 4)
    motion = moved_box()
    motion[1, 90:110], motion[7, 90:110], motion[11, 90:110] = 12, 1, 1  # lips would take them 12 pixels along
    shown = compositor.frame(code(), motion)
    top = 4 * 88  # of the box, in the picture
    middle = slice(top + 4 * 94, top + 4 * 106), slice(440, 584)  # lips come together towards its corners
    assert np.array_equal(shown[middle], picture[middle]) is not red


def test_teeth_of_a_picture_do_not_slide(vae: MotionAutoencoder, aligned: Aligned, monkeypatch) -> None:
    """The skull is asked for once, whatever the mouth does."""
    compositor, seen = Compositor(aligned, vae), []
    monkeypatch.setattr(compositor, "frame", lambda _, motion_MHW, __: seen.append(motion_MHW[[8, 9, 11, 13]].clone()))
    list(compositor.frames([code(jawOpen=i / 10, keepMouth=0.0) for i in range(11)]))
    assert all(torch.equal(place, seen[0]) for place in seen) and seen[0].abs().max() > 0


def test_teeth_that_a_lip_would_hide_stand_lower_but_not_those_that_are_bared() -> None:
    motion = torch.zeros(1, len(PARTS), 20, 12)
    motion[:, INSIDE, 8:16] = 1

    def lowered(lip: float, bared: float = 0.0) -> float:
        """Where the lip's edge is at a place below, in half heights of a tooth, whose edge is at 1."""
        motion[:, PARTS.index("below")] = lip + 0.2 * (torch.arange(20) - 8)[:, None]
        motion[:, TEETH, 8] = bared
        return hidden_teeth(motion)

    assert lowered(0.0) == 0 and 0 < lowered(0.5) < lowered(0.65) <= lowered(2.0) < 0.2
    assert lowered(2.0, bared=1.0) == 0
    motion[:, INSIDE] = 0
    assert lowered(2.0) == 0  # lips that do not part


def test_an_edit_counts_as_far_as_it_was_to_be_seen(vae: MotionAutoencoder, aligned: Aligned) -> None:
    """Codes are written to be mixed with a picture's own mouth; an edit keeps none of it."""
    kept = edit_mouth(aligned, code(jawOpen=0.8, keepMouth=0.75), vae)
    assert np.array_equal(kept, edit_mouth(aligned, code(jawOpen=0.2, keepMouth=0.0), vae))


def test_an_edit_speaks_as_wide_as_its_speaker() -> None:
    codes = torch.stack([code(jawOpen=jaw, mouthPress=0.3, keepMouth=0.2) for jaw in np.linspace(0, 0.8, 21)])
    jaw, press = CHANNELS.index("jawOpen"), CHANNELS.index("mouthPress")
    wide = 0.195 * float(((1 - 0.2) * codes[:, jaw]).quantile(0.95))
    narrow = speak_as_wide(codes, 0.7 * wide)
    assert torch.allclose(narrow[:, jaw], 0.7 * codes[:, jaw]) and torch.equal(narrow[:, press], codes[:, press])
    assert torch.equal(speak_as_wide(codes, 1.5 * wide), codes)  # nobody speaks wider than the model does
    assert torch.equal(speak_as_wide(codes, 0.01), codes)  # who is silent has not shown how wide
    assert torch.allclose(speak_as_wide(codes, 0.02)[:, jaw], 0.5 * codes[:, jaw])
    assert torch.equal(speak_as_wide(codes[:1] * 0, 0.1), codes[:1] * 0)


def test_lips_of_an_edit_that_are_to_meet_do(vae: MotionAutoencoder, aligned: Aligned, monkeypatch) -> None:
    """No inside of the mouth is drawn then, whatever the decoder says of a frame in which it is open."""
    inside = []
    monkeypatch.setattr(Compositor, "frame", lambda self, code_N, motion: inside.append(float(motion[7].max())))
    for name, size in (("mouthPress", 0.5), ("jawOpen", 0.02), ("jawOpen", 0.3)):
        edit_mouth(aligned, code(**{"keepMouth": 0.0, name: size}), vae)
    closed, parted, wide = inside
    assert closed == 0 and 0 < parted < wide


def test_the_dark_where_teeth_were_is_not_taken_for_teeth(
    vae: MotionAutoencoder, grin_picture: np.ndarray, grinning: np.ndarray, monkeypatch
) -> None:
    """Drawn teeth look like those that a frame bares. They were taken out of this one, but not out of a grey one."""
    bared = []
    monkeypatch.setattr(Compositor, "frame", lambda self, code_N, motion: bared.append(motion[[TEETH, UNKNOWN]]))
    grey = np.repeat(grin_picture.mean(2, keepdims=True), 3, 2).astype(np.uint8)
    for picture in (grin_picture, grey):
        aligned = Aligned(picture, np.array([[1.0, 0, 30], [0, 0.8, 0]]), (256, 256), landmarks=grinning)
        edit_mouth(aligned, code(jawOpen=0.8, keepMouth=0.0), vae)
    taken, kept = bared
    assert not taken[0].any() and (taken[1] == 1).all()
    assert kept[0].any()


def test_an_edit_of_no_strength_changes_nothing(vae: MotionAutoencoder, aligned: Aligned) -> None:
    assert np.array_equal(edit_mouth(aligned, code(jawOpen=1.0), vae, strength=0.0), aligned.picture_hw3)


def test_a_turned_head_moves_the_nose_and_not_the_corner(vae: MotionAutoencoder) -> None:
    y, x = np.mgrid[:256, :256]
    picture = np.repeat((128 + 60 * np.sin(x / 9) + 0 * y)[..., None], 3, -1).astype(np.uint8)
    aligned = Aligned(picture, np.eye(2, 3), (256, 256))
    (frame,) = Compositor(aligned, vae).frames([code(yaw=0.1)])
    shift = 0.1 * 0.26 * 256  # to the person's left, the right of the picture
    expected = 128 + 60 * np.sin((np.arange(110, 146) - shift) / 9)
    assert np.abs(frame[122, 110:146, 0] - expected).max() < 12
    assert np.array_equal(frame[:4, :4], picture[:4, :4])


def test_batches_make_no_difference(vae: MotionAutoencoder, aligned: Aligned) -> None:
    codes = [code(jawOpen=i / 10, keepMouth=0.0, keepEyes=float(i % 2)) for i in range(10)]
    together = list(Compositor(aligned, vae).frames(codes))
    alone = [next(Compositor(aligned, vae).frames([one])) for one in codes]
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(together, alone, strict=True)) <= 1


def test_motion_is_a_dial() -> None:
    codes = torch.stack([code(yaw=0.1, keepEyes=0.0, jawOpen=0.5)])
    still, half = scale_motion(codes, 0.0), scale_motion(codes, 0.5)
    assert still[0, KEEP_EYES] == 1 and not still[0, HEAD:].any() and still[0, CHANNELS.index("jawOpen")] == 0.5
    assert half[0, KEEP_EYES] == 0 and half[0, CHANNELS.index("yaw")] == pytest.approx(0.05)


def test_codes_are_read_at_the_frames_of_any_rate() -> None:
    codes = torch.arange(10.0)[:, None]
    assert torch.equal(at_times(codes, 25.0, 10), codes)
    assert torch.allclose(at_times(codes, 50.0, 19)[:, 0], torch.arange(19) / 2)
    assert at_times(codes, 24.0, 12)[-1, 0] == 9  # past the end the last one stays


def test_a_head_does_not_jump_and_sets_off_from_rest() -> None:
    """Noise that differs from latent to latent ends as slow motion; a mouth may open within a frame."""
    codes_FN = torch.zeros(81, len(CHANNELS))
    codes_FN[1:, HEAD:] = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)).repeat_interleave(4, 0)
    codes_FN[40, CHANNELS.index("jawOpen")] = 1
    steady = steady_head(codes_FN)
    assert not steady[0, HEAD:].any() and torch.equal(steady[:, :HEAD], codes_FN[:, :HEAD])
    steps, jumps = (codes[:, HEAD:].diff(dim=0).abs() for codes in (steady, codes_FN))
    assert steps[12::4].mean() < 2 * steps[14::4].mean() and steps.max() < 0.5 * jumps.max()


def test_lips_close_as_far_as_a_code_is_less_open_than_they_are() -> None:
    codes = torch.stack([code(keepMouth=keep, jawOpen=jaw) for keep in (0.0, 0.3, 1.0) for jaw in (0.0, 0.2, 0.6)])
    told, share = close(codes, 0.08)
    keep, left = codes[:, KEEP_MOUTH], 0.08 * (1 - share)
    wanted = (1 - keep) * parted(codes) + keep * 0.08
    assert torch.allclose(left, wanted.clamp(max=0.08))
    assert share[0] == 1 and (share[6:] == 0).all() and share[2] == 0  # 0.6 of a jaw is wider than that
    assert torch.equal(told[share == 0], codes[share == 0])
    # Mixed with what is kept of lips that were closed that far, the code told is still what was wanted.
    shut = share > 0
    mixed = (1 - keep) * parted(told) + keep * left
    assert torch.allclose(mixed[shut], wanted[shut], atol=1e-6)


def test_an_edit_closes_the_lips_of_its_frame(grin_picture: np.ndarray, grinning: np.ndarray) -> None:
    """Also with a decoder that has learned nothing; and where its code is wider than they are, they stay."""
    torch.manual_seed(0)
    vae = MotionAutoencoder(widths=(8, 12, 16, 24), code_width=16).eval()
    aligned = Aligned(grin_picture, placement(grinning, (256, 256)), (256, 256), landmarks=grinning)
    dark = [
        (edit_mouth(aligned, code(keepMouth=0.0, jawOpen=jaw), vae)[135:165, 130:190].max(2) < 60).sum()
        for jaw in (0.0, 0.2, 0.6)
    ]
    assert dark[0] == 0 and 0 < dark[1] < dark[2]


def test_who_grins_opens_the_mouth_hardly_wider_than_the_grin() -> None:
    codes = torch.stack([code(keepMouth=0.2, jawOpen=jaw, mouthPucker=0.5) for jaw in (0.0, 0.05, 0.3, 1.0)])
    told = at_most(codes, 0.08)
    assert parted(told).max() < 0.08 and (parted(told).diff() > 0).all()
    assert torch.allclose(told[:2], codes[:2], rtol=0.01)  # small openings are as they were
    others = [index for index, name in enumerate(CHANNELS) if name != "jawOpen"]
    assert torch.equal(told[:, others], codes[:, others])
