import numpy as np
import pytest
import torch

from skyreels_audio.evaluation.held_out import portrait, speaking_motion, true_video, voice
from skyreels_audio.evaluation.subjects import drawn
from skyreels_audio.faces import face_box
from skyreels_audio.media import InputError
from skyreels_audio.models import syncnet
from skyreels_audio.models.syncnet import Sync, SyncNet, face_crops, load_sync_expert, mfcc
from skyreels_audio.synthetic.render import Renderer

# Of the published syncnet_v2.model: index of a layer in its tower → shape of its weight.
AUDIO = {0: (64, 1, 3, 3), 4: (192, 64, 3, 3), 8: (384, 192, 3, 3), 11: (256, 384, 3, 3), 14: (256, 256, 3, 3)}
AUDIO |= {18: (512, 256, 5, 4)}
LIPS = {0: (96, 3, 5, 7, 7), 4: (256, 96, 1, 5, 5), 8: (256, 256, 1, 3, 3), 11: (256, 256, 1, 3, 3)}
LIPS |= {14: (256, 256, 1, 3, 3), 18: (512, 256, 1, 6, 6)}


def published_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for tower, layers in (("netcnnaud", AUDIO), ("netcnnlip", LIPS)):
        for index, shape in layers.items():
            shapes |= {f"{tower}.{index}.weight": shape, f"{tower}.{index}.bias": shape[:1]}
            for name in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{tower}.{index + 1}.{name}"] = shape[:1]
    for head in ("netfcaud", "netfclip"):
        shapes |= {f"{head}.0.weight": (512, 512), f"{head}.3.weight": (1024, 512), f"{head}.3.bias": (1024,)}
        norms = ("1.weight", "1.bias", "1.running_mean", "1.running_var")
        shapes |= {f"{head}.{name}": (512,) for name in ("0.bias", *norms)}
    return shapes


def tiny(**given) -> SyncNet:
    torch.manual_seed(0)
    options = {"embedding": 16, "scale": 0.0625, "side": 64, "normalise": True, "zero_edges": False}
    return SyncNet(**options | given).eval()


def test_the_published_weights_fit_by_name_and_shape(tmp_path):
    with torch.device("meta"):
        ours = {name: tuple(t.shape) for name, t in SyncNet().state_dict().items() if "num_batches" not in name}
    assert ours == published_shapes()
    given = {name: torch.rand(shape) for name, shape in published_shapes().items()}
    torch.save(given, tmp_path / "syncnet_v2.model")
    loaded = SyncNet.from_public(tmp_path / "syncnet_v2.model").state_dict()
    assert all(torch.equal(loaded[name], given[name]) for name in given)


@pytest.mark.parametrize("change", ["lacks", "netcnnlip.0.weight is", "cannot be read", "no_file"])
def test_what_are_not_syncnets_weights_is_refused(tmp_path, change):
    path, given = tmp_path / "x.model", {n: torch.zeros(s) for n, s in published_shapes().items()}
    if change == "lacks":
        del given["netfclip.0.weight"]
    given["netcnnlip.0.weight"] = torch.zeros(1) if "is" in change else given["netcnnlip.0.weight"]
    torch.save(given, path)
    if change == "cannot be read":
        path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read" if change == "no_file" else change):
        SyncNet.from_public(tmp_path / "y" if change == "no_file" else path)


def test_one_pass_over_a_clip_is_every_window_alone():
    model, faces = tiny(), torch.randint(0, 255, (1, 9, 80, 80, 3), dtype=torch.uint8)
    model.register_to_config(normalise=False)
    whole = model.embed_faces(faces)[0]
    alone = torch.cat([model.embed_faces(faces[:, at : at + 5])[0] for at in range(5)])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-5)


class Told(SyncNet):
    """A network that knows: lips and sound carry the number of their frame."""

    def embed_faces(self, faces_BFHWC):
        return torch.nn.functional.one_hot(faces_BFHWC[:, :-4, 0, 0, 0].long(), 256).float()

    def embed_audio(self, mfcc_BCM):
        return torch.nn.functional.one_hot(mfcc_BCM[:, 0, :-16:4].long(), 256).float()


@pytest.mark.parametrize("late", [-4, 0, 3])
@pytest.mark.parametrize("zero_edges", [True, False])
def test_the_offset_says_how_late_the_sound_is(monkeypatch, late, zero_edges):
    frames, said = 60, np.arange(60) + 100
    sound = said - late  # of frame k one hears what was said `late` frames ago
    monkeypatch.setattr(syncnet, "mfcc", lambda audio: np.repeat(sound[None].astype(np.float32), 4, axis=1))
    faces = np.broadcast_to(said[:, None, None, None], (frames, 8, 8, 3)).astype(np.uint8)
    model = Told(embedding=8, scale=0.0625, side=64, zero_edges=zero_edges)
    result = model.offset_and_confidence(faces, np.zeros(frames * 640, np.float32))
    assert isinstance(result, Sync) and result.offset == late and result.confidence > 0.3
    assert len(result.distances) == 31 and result.distance == result.distances.min()


def test_a_long_clip_in_pieces_is_the_whole_one():
    """Windows at the seams of pieces see their own five frames."""
    model = tiny()
    faces = np.random.default_rng(0).integers(0, 255, (118, 64, 64, 3)).astype(np.uint8)
    audio = np.random.default_rng(1).normal(size=118 * 640).astype(np.float32) / 10
    result = model.offset_and_confidence(faces, audio, shifts=0)
    lips = torch.cat([model.embed_faces(torch.from_numpy(faces[None, i : i + 60]))[0] for i in (0, 56, 58)])
    lips = torch.cat([lips[:112], lips[-1:]])
    sound = model.embed_audio(torch.from_numpy(mfcc(audio))[None])[0, :113]
    assert result.distance == pytest.approx(float((lips - sound).norm(dim=-1).mean()), abs=1e-4)


def test_too_short_a_clip_is_refused():
    with pytest.raises(ValueError, match="at least 6 frames"):
        tiny().offset_and_confidence(np.zeros((5, 64, 64, 3), np.uint8), np.zeros(16000, np.float32))


def test_without_weights_one_sentence_says_so(monkeypatch, tmp_path):
    load_sync_expert.cache_clear()
    monkeypatch.setattr(syncnet, "bundled", lambda path: tmp_path)
    with pytest.raises(InputError, match="No sync expert ships"):
        load_sync_expert()
    tiny().save_pretrained(tmp_path)
    assert load_sync_expert().config.embedding == 16
    load_sync_expert.cache_clear()


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
    ours = load_sync_expert().state_dict()
    for asked in (sync_expert(None), stage._expert):
        assert all(torch.equal(value, ours[name]) for name, value in asked.state_dict().items())


def test_mfcc_are_those_of_the_library_that_syncnet_was_trained_with():
    t = np.arange(8000) / 16000
    tone = 0.4 * np.sin(2 * np.pi * 220 * t) + 0.2 * np.sin(2 * np.pi * 1330 * t * (1 + t))
    # python_speech_features 0.6: mfcc((tone * 32767).astype(int16), 16000)[20]
    expected = [21.5716, 0.5903, -16.3958, 25.3909, 38.7727, -18.3608, -44.9542, -6.5527, 0.9406, -39.242, -39.3418]
    coefficients = mfcc(tone.astype(np.float32))
    assert coefficients.shape == (13, 49)
    np.testing.assert_allclose(coefficients[:, 20], [*expected, -4.6157, -6.0848], atol=0.02)
    assert np.isfinite(mfcc(np.zeros(100, np.float32))).all()


def test_crops_follow_the_box_and_fill_gaps():
    frames = np.zeros((20, 100, 100, 3), np.uint8)
    frames[:, 40:60, 40:60] = 255
    boxes = np.tile(np.array([40.0, 40, 60, 60]), (20, 1))
    boxes[5] = np.nan
    crops = face_crops(frames, boxes, 56)
    assert crops.shape == (20, 56, 56, 3) and (crops == crops[:1]).all()
    rows, columns = np.nonzero(crops[0, :, :, 0] > 128)
    # A box of 20 in a square of 28 that begins at its top and is 0.4 half heights wider on both sides.
    assert (
        rows.min() <= 1 and abs(rows.max() - 39) <= 1 and abs(columns.min() - 8) <= 1 and abs(columns.max() - 47) <= 1
    )
    with pytest.raises(ValueError, match="no frame has the box"):
        face_crops(frames, np.full((20, 4), np.nan))
