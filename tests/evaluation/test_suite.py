import csv
import hashlib
from collections import Counter
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from skyreels_audio import media
from skyreels_audio.cli.suite import parse_shard
from skyreels_audio.evaluation.cases import Case, read_cases, write_cases
from skyreels_audio.evaluation.prepare import write_sound
from skyreels_audio.evaluation.suite import Portrait, _on_beats, draw, framed, load_suite, make_videos, read_art
from skyreels_audio.faces.framing import MOUTH_CENTRE
from skyreels_audio.media import InputError
from skyreels_audio.synthetic.speech import RATE, Utterance

SUITE = load_suite("talking-50x30x20")


def test_the_suite_is_what_its_name_says():
    assert (len(SUITE.portraits), len(SUITE.voices), len(SUITE.prompts)) == (50, 30, 20)
    assert len(SUITE.cases) == 50 * 30 * 20 == len({name for name, *_ in SUITE.cases})
    assert len({voice.language.split("-")[0] for voice in SUITE.voices}) >= 8
    assert {voice.kind for voice in SUITE.voices} == {"speech", "singing", "rap"}
    assert {"marble", "anime", "painting", "realistic"} <= {portrait.style for portrait in SUITE.portraits}
    for kind in (SUITE.portraits, SUITE.voices, SUITE.prompts):
        assert len({each.name for each in kind}) == len(kind)
    assert SUITE.licences.keys() == {"portraits", "voices", "prompts"}


def test_a_portrait_is_drawn_or_painted_but_not_both():
    Portrait(name="a", style="painting", person=1)
    Portrait(name="a", style="painting", picture="a.jpg")
    for wrong in ({}, {"person": 1, "picture": "a.jpg"}):
        with pytest.raises(ValueError, match="either a person or a picture"):
            Portrait.model_validate({"name": "a", "style": "painting"} | wrong)


ART = Path(str(files("skyreels_audio.evaluation") / "assets" / "art"))
PAINTINGS = [portrait.picture for portrait in SUITE.portraits if portrait.picture]


def test_every_painting_has_its_source_and_is_in_the_suite():
    rows = list(csv.DictReader((ART / "SOURCES.tsv").open(encoding="utf-8"), delimiter="\t"))
    named = {row["file"]: row["sha256"] for row in rows}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in ART.glob("*.jpg")}
    assert named == found and sorted(found) == sorted(PAINTINGS)
    assert all(row["source"] and row["licence"] and row["maker"] for row in rows)


@pytest.mark.parametrize("name", PAINTINGS)
def test_a_painting_is_framed_around_its_face(name):
    from skyreels_audio.faces import detect_faces, landmarks_68

    picture = framed(read_art(name), (256, 256))
    assert picture.shape == (256, 256, 3)
    points = landmarks_68(detect_faces(picture)[0])
    middle = points[[48, 54]].mean(0) / 256
    assert np.abs(middle - MOUTH_CENTRE).max() < 0.06


@pytest.mark.parametrize("count", [50, 300])
def test_any_beginning_of_the_cases_is_balanced(count):
    for column in (1, 2, 3):
        chosen: list[Any] = [case[column] for case in SUITE.cases[:count]]
        used = Counter(each.name for each in chosen)
        assert max(used.values()) - min(used.values()) <= 1 + count // 25
        assert len(used) == (50, 30, 20)[column - 1]
    combinations = [
        tuple(each.name for each in (portrait, voice, prompt)) for _, portrait, voice, prompt in SUITE.cases
    ]
    assert len(set(combinations)) == len(combinations)


def test_espeak_has_the_voices_of_the_suite():
    from skyreels_audio.synthetic.voices import say_espeak

    for voice in SUITE.voices:
        if voice.engine == "espeak":
            said = say_espeak(voice.text.split()[0], voice.language, voice.voice, np.random.default_rng(0))
            assert said.duration > 0.1, voice.name


def test_what_is_no_suite_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nvoices: []\n")
    with pytest.raises(InputError, match="is not a suite"):
        load_suite(str(tmp_path / "mine.yaml"))
    with pytest.raises(InputError, match="There is no suite"):
        load_suite("others")


@pytest.mark.parametrize("singing", [True, False])
def test_words_begin_on_beats_with_their_phonemes(singing):
    time = np.arange(round(0.25 * RATE)) / RATE
    word = Utterance(np.sin(2 * np.pi * 150 * time).astype(np.float32), ((0.05, 0.2, "a"),), "la", "en", "espeak:m1")
    song = _on_beats([word] * 5, singing)
    beat = 0.5 if singing else 0.3
    starts = np.array([start for start, _, _ in song.phonemes])
    assert len(starts) == 5 and (np.diff(starts) > 0.9 * beat).all()
    offbeat = (starts - starts[0]) / beat
    assert np.abs(offbeat - offbeat.round()).max() < 0.12  # a higher note is a shorter word
    assert song.phonemes[-1][1] <= song.duration


@pytest.fixture
def cases(tmp_path) -> list[Case]:
    for name in ("portraits", "voices", "videos"):
        (tmp_path / name).mkdir()
    media.write_image(tmp_path / "portraits" / "p.png", np.full((32, 32, 3), 90, np.uint8))
    write_sound(tmp_path / "voices" / "v.wav", np.zeros(3200, np.float32))
    files = {"voice": tmp_path / "voices" / "v.wav", "portrait": tmp_path / "portraits" / "p.png"}
    made = [Case(f"case-{number}", prompt="smiling", **files) for number in range(5)]
    write_cases(tmp_path, made, suite="test")
    return read_cases(tmp_path)


class Pipe:
    """Stands for a pipeline: five grey frames; it breaks on the calls that it is told."""

    def __init__(self, breaks: tuple[int, ...] = ()) -> None:
        self.breaks, self.calls = breaks, 0

    def __call__(self, picture, voice_n, prompt, generator):
        self.calls += 1
        if self.calls in self.breaks:
            raise RuntimeError("no memory left")
        return SimpleNamespace(frames=iter([picture] * 5), fps=25.0)


def test_a_failing_case_does_not_end_the_run_and_is_made_by_the_next(cases, tmp_path):
    failed = make_videos(cases, Pipe(breaks=(2,)), tmp_path)
    assert list(failed) == ["case-1"] and "no memory left" in failed["case-1"]
    assert len(list((tmp_path / "videos").iterdir())) == 4
    again = Pipe()
    assert make_videos(cases, again, tmp_path) == {} and again.calls == 1
    assert media.probe_video(tmp_path / "videos" / "case-1.mp4").has_audio


def test_shards_share_the_cases(cases, tmp_path):
    pipes = [Pipe() for _ in range(3)]
    for part, pipe in enumerate(pipes):
        make_videos(cases, pipe, tmp_path, parse_shard(f"{part + 1}/3"))
    assert [pipe.calls for pipe in pipes] == [2, 2, 1]
    assert {path.stem for path in (tmp_path / "videos").iterdir()} == {case.name for case in cases}
    for wrong in ("0/3", "4/3", "2", "a/b"):
        with pytest.raises(InputError, match="--shard"):
            parse_shard(wrong)


def test_a_bust_has_no_colour_and_a_person_has():
    pytest.importorskip("moderngl")
    from skyreels_audio import faces
    from skyreels_audio.synthetic.render import Renderer

    renderer = Renderer(128)
    chosen = {portrait.style: portrait for portrait in SUITE.portraits}
    spread = {}
    for style in ("marble", "realistic"):
        picture = draw(renderer, chosen[style])
        found = faces.detect_faces(picture)
        assert found, style
        x0, y0, x1, y1 = found[0].box_xyxy.astype(int)
        face = picture[y0:y1, x0:x1].astype(int)
        spread[style] = (face.max(-1) - face.min(-1)).mean()
    assert spread["marble"] < 0.6 * spread["realistic"]
