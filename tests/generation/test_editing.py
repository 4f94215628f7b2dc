import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from skyreels_audio.faces import Track, track_faces
from skyreels_audio.generation import edit_plan, editing
from skyreels_audio.generation.edit_plan import Extend, Plan, plan_edit, source_order
from skyreels_audio.generation.editing import THREADS, edit_video, in_threads, put_back
from skyreels_audio.media import InputError, VideoWriter, probe_video, read_stored, read_video

PORTRAIT = Path(__file__).parents[1] / "faces" / "portrait.jpg"
CROP = 64, 64
GONE = range(12, 17)  # frames without a face
FRAMES = 30


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face that drifts, and is covered for a while."""
    path = tmp_path_factory.mktemp("editing") / "source.mp4"
    with Image.open(PORTRAIT) as image:
        picture = np.asarray(image.convert("RGB").resize((160, round(160 * image.height / image.width))))
    height = picture.shape[0] // 2 * 2 - 8
    with VideoWriter(path, 144, height, 25) as writer:
        for frame in range(FRAMES):
            view = picture[frame // 6 : frame // 6 + height, frame // 4 : frame // 4 + 144].copy()
            if frame in GONE:
                view[60:170, 30:115] = view[60:170, 30:115].mean(axis=(0, 1))
            writer.write(view)
    return path


@pytest.fixture(scope="module")
def plan(source: Path) -> Plan:
    return plan_edit(source, FRAMES / 25, CROP).with_reference()


@given(st.integers(1, 40), st.integers(1, 200), st.sampled_from(get_args(Extend)))
def test_the_order_is_continuous_and_ends_as_asked(available: int, wanted: int, extend: Extend) -> None:
    order = source_order(available, wanted, extend)
    assert order[: min(available, wanted)] == list(range(min(available, wanted)))
    assert len(order) == (min(available, wanted) if extend == "trim" else wanted)
    assert all(0 <= index < available for index in order)
    steps = np.abs(np.diff(order))
    assert (steps <= 1).all()
    if extend == "ping-pong" and available > 1:
        assert (steps == 1).all()
    if extend == "hold":
        assert order[available:] == [available - 1] * max(0, wanted - available)


def test_short_runs_keep_their_source() -> None:
    faults = ["hidden", *[None] * 4, "hidden", *[None] * 5]
    assert edit_plan.without_short_runs(faults) == ["hidden", *["seen too briefly"] * 4, "hidden", *[None] * 5]


def test_between_placements_lies_what_lies_between() -> None:
    a, b = np.zeros((2, 3)), np.full((2, 3), 4.0)
    filled = edit_plan.without_gaps([None, a, None, None, None, b, None])
    assert [float(place[1, 2]) for place in filled] == [0, 0, 1, 2, 3, 4, 4]


def test_frames_come_in_any_order(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = probe_video(source)
    stored = [frame.planes for frame in read_stored(source)]
    order = [0, 1, 2, 7, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 29, 28, 27, 3]
    for held in (0, 1 << 20, 1 << 28):
        monkeypatch.setattr(editing, "HELD_BYTES", held)
        frames = list(editing.frames_at(source, info, order))
        for frame, index in zip(frames, order, strict=True):
            assert all(map(np.array_equal, frame.planes, stored[index]))


def test_the_plan_keeps_what_has_no_face(plan: Plan) -> None:
    assert plan.untouched[0] == {"first": 0, "last": 0, "reason": "reference frame"}
    (gap,) = plan.untouched[1:]
    assert (gap["first"], gap["last"]) == (GONE[0], GONE[-1])
    assert len(plan.places) == FRAMES and plan.start == 0
    strengths = plan.strengths
    assert (strengths[[0, *GONE]] == 0).all() and strengths[-1] == strengths[6] == 1
    assert 0 < strengths[GONE[0] - 1] < strengths[GONE[0] - 2] < 1


def test_only_a_model_that_makes_pixels_needs_a_reference(plan: Plan, source: Path) -> None:
    moved = plan_edit(source, FRAMES / 25, CROP)
    assert moved.untouched == plan.untouched[1:]
    assert moved.strengths[0] == 1 and (moved.strengths[list(GONE)] == 0).all()
    everywhere = replace(moved, faults=[None] * FRAMES)
    assert (everywhere.strengths == 1).all()


def test_what_is_put_back_changes_the_mouth_alone(plan: Plan, source: Path) -> None:
    crops_FHWC, known_FHW = editing.cut(plan)
    assert known_FHW[0].all() and not known_FHW[1].all() and known_FHW[GONE[1]].all()
    rng = np.random.default_rng(0)
    edited = [
        np.where(known[..., None], crop, rng.integers(0, 256, 3, np.uint8))
        for crop, known in zip(crops_FHWC, known_FHW, strict=True)
    ]
    before = list(read_video(source))
    for index, frame in enumerate(put_back(plan, crops_FHWC, known_FHW, edited)):
        changed = (frame.rgb() != before[index]).any(axis=2)
        if plan.faults[index] is not None:
            assert not changed.any()
            continue
        assert changed.any()
        rows, columns = np.nonzero(changed)
        place, box = plan.places[index], plan.boxes[index]
        assert box is not None
        corners = box.reshape(2, 2) @ place[:, :2].T + place[:, 2]
        reach = 3 * np.hypot(*place[:, 0])  # of a resampled pixel of the crop
        assert corners[:, 0].min() - reach < columns.min() and columns.max() < corners[:, 0].max() + reach
        assert corners[:, 1].min() - reach < rows.min() and rows.max() < corners[:, 1].max() + reach


def test_a_crop_that_comes_back_as_it_went_is_not_seen(plan: Plan, source: Path) -> None:
    crops_FHWC, known_FHW = editing.cut(plan)
    darker = [(crop * 0.9).astype(np.uint8) for crop in crops_FHWC]
    for edited in (crops_FHWC, darker):  # colours are those of the source
        after = np.stack([frame.rgb() for frame in put_back(plan, crops_FHWC, known_FHW, edited)])
        error = np.square(after.astype(float) - np.stack(list(read_video(source)))).mean()
        assert 10 * np.log10(255**2 / error) > 36


def test_an_edited_video_lasts_as_long_as_the_voice(pipeline, source: Path) -> None:
    voice_n = np.sin(np.arange(round(16000 * 1.7)) / 9).astype(np.float32) * 0.3
    plan = plan_edit(source, len(voice_n) / 16000, (32, 32))
    edited = edit_video(pipeline, plan, voice_n, generator=torch.Generator().manual_seed(0))
    shown = [frame.rgb() for frame in edited.frames]
    assert len(shown) == edited.num_frames == 43
    before = list(read_video(source))
    kept = [index for index, fault in enumerate(edited.plan.faults) if fault is not None]
    assert 0 in kept and len(kept) >= 1 + len(GONE)
    assert all(np.array_equal(shown[index], before[plan.order[index]]) for index in kept)


def test_frames_edited_in_threads_come_in_order() -> None:
    """However long each takes; few are read ahead, and what goes wrong with one is told in its place."""
    read, threads, came = [], set(), []

    def frames() -> Iterator[tuple[int, Any]]:
        for number in range(40):
            read.append(number)
            yield number, number

    def edited(number: int, frame: Any) -> Any:
        time.sleep(0.002 * (number % 3))
        threads.add(torch.get_num_threads())
        if number == 30:
            raise ValueError("thirty")
        return 10 * frame

    with pytest.raises(ValueError, match="thirty"):
        for frame in in_threads(edited, frames()):
            came.append(frame)
            assert len(read) <= len(came) + 2 * THREADS
    assert came == [10 * number for number in range(30)] and threads == {1}


@pytest.mark.parametrize(("face", "sentence"), [("3", "has faces 0 to"), ("top", "largest, left, right or an index")])
def test_a_face_that_is_not_there_is_told(source: Path, face: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        plan_edit(source, 0.2, CROP, face=face)


def test_a_video_without_faces_is_told(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "grey.mp4", 64, 64, 25) as writer:
        for _ in range(3):
            writer.write(np.full((64, 64, 3), 99, np.uint8))
    with pytest.raises(InputError, match="no face was found"):
        plan_edit(tmp_path / "grey.mp4", 1, CROP)


def test_after_a_cut_the_source_is_kept_and_the_report_says_why(source: Path, tmp_path: Path) -> None:
    face = next(read_video(source))
    shots = [face] * 12, [np.zeros_like(face)] * 6, [face[:, ::-1]] * 8
    with VideoWriter(tmp_path / "cuts.mp4", face.shape[1], face.shape[0], 25) as writer:
        for frame in (frame for shot in shots for frame in shot):
            writer.write(frame)
    plan = plan_edit(tmp_path / "cuts.mp4", 26 / 25, CROP)
    assert plan.untouched == [
        {"first": 12, "last": 17, "reason": "no face"},
        {"first": 18, "last": 25, "reason": "another face"},
    ]
    assert plan.speakers == 2
    assert [(shot["first"], shot["last"], shot["followed"] is not None) for shot in plan.shots] == [
        (0, 11, True),
        (12, 17, False),
        (18, 25, False),
    ]
    last = plan_edit(tmp_path / "cuts.mp4", 26 / 25, CROP, face="1")
    assert (last.start, len(last.places)) == (18, 8)


def test_a_head_that_turns_away_keeps_its_source(plan: Plan) -> None:
    face = next(face for face in track_faces([next(read_video(plan.path))])[0].seen)
    turned = replace(face, landmarks=face.landmarks + np.eye(478)[4][:, None] * [0.9 * face.height, 0, 0])
    track = Track((face, turned, replace(face, score=0.6), None))
    assert [edit_plan.fault_of(track, [track], index) for index in range(4)] == [
        None,
        "turned away",
        "hidden",
        "no face",
    ]


def test_one_speaker_is_followed_through_shots_in_another_light(source: Path, tmp_path: Path) -> None:
    face = next(read_video(source))
    bright = np.clip(face * 1.3 + 10, 0, 255).astype(np.uint8)
    with VideoWriter(tmp_path / "jump.mp4", face.shape[1], face.shape[0], 25) as writer:
        for frame in [face] * 10 + [np.roll(bright, 9, axis=1)] * 10:
            writer.write(frame)
    plan = plan_edit(tmp_path / "jump.mp4", 20 / 25, CROP)
    assert plan.untouched == [] and plan.speakers == 1
    assert [shot["first"] for shot in plan.shots] == [0, 10] and all(shot["followed"] for shot in plan.shots)


def test_a_face_of_narrow_pixels_is_placed_as_it_is_shown(source: Path, tmp_path: Path) -> None:
    face = next(read_video(source))
    height, width, _ = face.shape
    narrow = np.asarray(Image.fromarray(face).resize((width // 4 * 2, height)))
    with VideoWriter(tmp_path / "sar.mp4", narrow.shape[1], height, 25, aspect=Fraction(2)) as writer:
        for _ in range(6):
            writer.write(narrow)
    squeezed, square = plan_edit(tmp_path / "sar.mp4", 6 / 25, CROP), plan_edit(source, 6 / 25, CROP)
    assert squeezed.info.aspect == 2
    assert np.abs(squeezed.places[0] * [[2.0], [1.0]] - square.places[0]).max() < 0.02 * width


def test_a_voice_too_short_and_a_video_cut_short_are_told(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"The voice lasts 0\.10 s, but an edit of .* needs at least 0\.20 s"):
        plan_edit(source, 0.1, CROP)
    whole = tmp_path / "whole.mkv"
    with av.open(str(source)) as container, av.open(str(whole), "w") as output:
        copy = output.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                output.mux(packet)
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: int(0.6 * whole.stat().st_size)])
    with pytest.raises(InputError, match=r"cut\.mkv is truncated: it holds \d\.\d\d s of 1\.\d\d s of picture"):
        plan_edit(tmp_path / "cut.mkv", 1.2, CROP)
    assert len(plan_edit(tmp_path / "cut.mkv", 0.3, CROP).order) == 8
