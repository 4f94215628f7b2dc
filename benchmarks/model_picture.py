"""What the picture is like: the autoencoder, what the prompt changes, and how long a video takes."""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from table import Row
from workbench import Workbench

from skyreels_audio import faces, media
from skyreels_audio.evaluation.attributes import background_colour, classify, head_gesture
from skyreels_audio.evaluation.held_out import portrait, speaking_motion, voice
from skyreels_audio.evaluation.quality import box_mask, psnr, static_mask
from skyreels_audio.evaluation.subjects import drawn
from skyreels_audio.synthetic.captions import Attributes, caption, manner_attributes
from skyreels_audio.synthetic.motion import FPS, Manner
from skyreels_audio.synthetic.subject import Subject

CODED_FRAMES = 33
PROMPT_FRAMES = 65  # 2.6 s: three nods
SECONDS = 10.0
SPEAKS = {"expression": "neutral", "motion": "still"}
MANNERS = (Manner("neutral"), Manner("smiling"), Manner("neutral", "lively", "nodding"))
MANNERS += (Manner("neutral", "lively", "shaking"),)


def autoencoder(bench: Workbench) -> list[Row]:
    """What the best model behind this decoder could show, and how fast it is decoded."""
    clips = 4 if bench.quick else 12
    cases = [bench.cases(f"coded-drawn-{n}", lambda n=n: _coded_drawn(bench, n)) for n in range(clips)]
    decoding = bench.cases("decoding", lambda: _decoding(bench))
    note, still = f"{clips} clips of {CODED_FRAMES} frames", _mean(cases, "still")
    return [
        Row("decoder: true codes, lower face, drawn people", _mean(cases, "psnr"), baseline=f"still {still:.1f}",
            unit=" dB", digits=1, note=note),
        Row("decoder: 10 s of video", decoding["seconds"], ("≤", 4.0), "", "", " s", 2, _machine()),
    ]  # fmt: skip


def _coded_drawn(bench: Workbench, number: int) -> dict:
    subject = drawn("test", 300 + number)[0]
    motion = speaking_motion(voice(number, CODED_FRAMES / FPS), number)
    shown, (image, _) = bench.renderer.render(subject, motion), portrait(bench.renderer, subject)
    lower, still = box_mask(shown.lower_face_box_T4[0], image.shape), np.broadcast_to(image, shown.frames.shape)
    return {
        "psnr": psnr(bench.true_codes(image, motion), shown.frames, lower),
        "still": psnr(still, shown.frames, lower),
    }


def cut_portrait(image: np.ndarray, face: faces.Face, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The picture framed as the pictures of training are, and the face's box in it."""
    from PIL import Image

    left, top, right, bottom = faces.portrait_crop(image, face, size)
    cut = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS, box=(left, top, right, bottom))
    return np.asarray(cut), (face.box_xyxy - [left, top, left, top]) * size[0] / (bottom - top)


def _decoding(bench: Workbench) -> dict:
    image, _ = portrait(bench.renderer, drawn("test", 600)[0])
    motion, seconds = speaking_motion(voice(600, SECONDS), 600), []
    for _ in range(2):  # the first run also allocates
        started = time.perf_counter()
        count = len(bench.true_codes(image, motion))
        seconds.append((time.perf_counter() - started) * SECONDS * FPS / count)
    return {"seconds": min(seconds)}


def text(bench: Workbench) -> list[Row]:
    """What the prompt does: to an animated portrait (expression, motion), and without one (who is seen)."""
    people, sentences = range(400, 401 if bench.quick else 403), range(6 if bench.quick else 24)
    asked = [bench.cases(f"text-{n}", lambda n=n: _directed(bench, n)) for n in people]
    ideal = [bench.truth(f"text-{n}", lambda n=n: _true_directions(bench, n)) for n in people]
    described = [bench.cases(f"text-only-{n}", lambda n=n: _described(bench, n)) for n in sentences]
    directed, true = ([seen for case in cases for seen in case["seen"]] for cases in (asked, ideal))
    change, chance = float(np.mean([case["change"] for case in asked])), _mean(asked, "another_seed")
    rows = [
        Row(
            "text: change by removing the prompt",
            change,
            baseline=f"another seed {chance:.2f}",
            note="mean absolute difference, levels of 255, same seed",
        )
    ]
    for name in ("expression", "motion"):
        known, best = ([case[name] for case in cases if case[name] is not None] for cases in (directed, true))
        choices = 2 if name == "expression" else 3
        rows.append(
            Row(f"text: {name} as prompted (of {choices})", float(np.mean(known)) if known else None,
                ceiling=f"true video {np.mean(best):.2f}", baseline=f"chance {1 / choices:.2f}",
                note=f"{len(known)} animated portraits")
        )  # fmt: skip
    portraits = [bench.truth(f"text-only-{n}", lambda n=n: _true_description(bench, n)) for n in sentences]
    for name in ("sex", "skin", "hair_colour", "background_colour"):
        known, best = ([case[name] for case in cases if name in case] for cases in (described, portraits))
        rows.append(
            Row(
                f"text alone: {name.replace('_', ' ')} as prompted",
                float(np.mean(known)) if known else None,
                ceiling=f"true picture {np.mean(best):.2f}" if best else "",
                note=f"{len(known)} of {len(described)} sentences say so, and a face was found",
            )
        )
    return rows


def _ask(number: int, manner: Manner) -> str:
    return caption(drawn("test", number)[1] | manner_attributes(manner), np.random.default_rng(number))


def _directed(bench: Workbench, number: int) -> dict:
    """One portrait and voice under each manner's prompt, without a prompt, and so with another seed."""
    image, _ = portrait(bench.renderer, drawn("test", number)[0])
    said = voice(number, PROMPT_FRAMES / FPS)
    without, other = (bench.generate(image, said.waveform, "", seed=seed).astype(np.int16) for seed in (number, 1))
    videos = [bench.generate(image, said.waveform, _ask(number, manner), seed=number) for manner in MANNERS]
    return {
        "another_seed": float(np.abs(without - other).mean()),
        "change": [float(np.abs(frames - without).mean()) for frames in videos],
        "seen": [_seen(frames, manner) for frames, manner in zip(videos, MANNERS, strict=True)],
    }


def _true_directions(bench: Workbench, number: int) -> dict:
    said, subject = voice(number, PROMPT_FRAMES / FPS), drawn("test", number)[0]
    shown = [bench.renderer.render(subject, speaking_motion(said, number, manner)).frames for manner in MANNERS]
    return {"seen": [_seen(frames, manner) for frames, manner in zip(shown, MANNERS, strict=True)]}


def _seen(frames_FHWC: np.ndarray, manner: Manner) -> dict:
    """Whether expression and motion are the manner's; None where no face is seen."""
    tracks = faces.track_faces(frames_FHWC)
    if not tracks or len(tracks[0].frames) < len(frames_FHWC) // 2:
        return {"expression": None, "motion": None}
    landmarks = [face.landmarks for face in tracks[0].faces if face is not None]
    shown = frames_FHWC[tracks[0].frames]
    words = classify(shown[::4], landmarks[::4])
    motion = head_gesture(landmarks)
    return {
        "expression": float(words["expression"] == manner.expression),
        "motion": float(motion == (manner.gesture or "still")),
    }


def _described(bench: Workbench, number: int) -> dict:
    """The portrait that a sentence alone makes, and whether it shows what the sentence says."""
    _, known, prompt = _description(number)
    frames = bench.generate(None, np.zeros(1600, np.float32), prompt, seed=number)
    return _judged(frames[0], known, prompt)


def _true_description(bench: Workbench, number: int) -> dict:
    subject, known, prompt = _description(number)
    return _judged(portrait(bench.renderer, subject)[0], known, prompt)


def _description(number: int) -> tuple[Subject, Attributes, str]:
    subject, known = drawn("test", 450 + number, "realistic")
    known |= SPEAKS
    return subject, known, caption(known, np.random.default_rng(number))


def _judged(frame: np.ndarray, known: Attributes, prompt: str) -> dict:
    """Which of the prompt's words the frame shows; empty where there is no face."""
    found = faces.detect_faces(frame)
    if not found:
        return {}
    points = found[0].landmarks
    words = classify(frame[None], [points])
    words["background_colour"] = background_colour(frame, static_mask(points, frame.shape))
    # A sentence says "girl" for a woman's sex, and may leave details out.
    details = ("skin", "hair_colour", "background_colour")
    asked = ["sex", *(name for name in details if (word := known[name]) and word in prompt)]
    return {name: float(words[name] == known[name]) for name in asked}


def speed(bench: Workbench) -> list[Row]:
    """`generate` in its parts, portrait and voice from files to a file."""
    parts = bench.cases("speed", lambda: _speed(bench))
    whole = sum(parts.values())
    listed = ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts.items())
    steps = bench.settings.num_inference_steps
    return [
        Row("whole generate, 10 s of voice", whole, unit=" s", digits=1, note=f"{listed}; {steps} steps, {_machine()}")
    ]


def _speed(bench: Workbench) -> dict:
    image, _ = portrait(bench.renderer, drawn("test", 600)[0])
    said = voice(600, SECONDS)
    parts = {"load": bench.load_seconds, "face": 0.0, "encode": 0.0, "denoise": 0.0, "decode": 0.0, "write": 0.0}
    phases = {"encode": "encode", "sample": "denoise"}

    started = time.perf_counter()
    picture, _ = cut_portrait(image, faces.detect_faces(image)[0], bench.size)
    parts["face"] = time.perf_counter() - started
    begun: dict[str, float] = {}

    def progress(phase: str, done: int, total: int) -> None:
        if phase in phases and done == 0:
            begun[phase] = time.perf_counter()
        elif phase in phases and done == total:
            parts[phases[phase]] = time.perf_counter() - begun[phase]

    generator = torch.Generator().manual_seed(0)
    video = bench.pipe(picture, said.waveform, "A person speaks.", generator=generator, progress=progress)
    height, width = bench.size
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with media.VideoWriter(Path(folder, "video.mp4"), width, height, video.fps) as writer:
            for frame in video.frames:
                decoded = time.perf_counter()
                writer.write(frame)
                parts["write"] += time.perf_counter() - decoded
        parts["decode"] = time.perf_counter() - started - parts["write"]
    return parts


def _machine() -> str:
    return f"{torch.get_num_threads()} threads"


def _mean(cases: list[dict], name: str) -> float:
    return float(np.mean([case[name] for case in cases]))
