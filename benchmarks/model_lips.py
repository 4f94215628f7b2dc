"""Whether the voice drives the lips: on held-out drawn people, on photographs and paintings, and in silence."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from model_picture import SPEAKS, cut_portrait
from PIL import Image
from table import Row
from workbench import Workbench

from skyreels_audio import faces, media
from skyreels_audio.evaluation.held_out import Voice, broken_voice, portrait, speaking_motion, true_video, voice
from skyreels_audio.evaluation.identity import identity_distances
from skyreels_audio.evaluation.lips import (
    CURVES,
    correlation,
    lagged_correlations,
    lip_aperture_curve,
    lip_curves,
    true_curves,
)
from skyreels_audio.evaluation.quality import box_mask, psnr, silence_ratio, static_mask
from skyreels_audio.evaluation.subjects import drawn, photographed
from skyreels_audio.synthetic.appearance import LOOKS
from skyreels_audio.synthetic.captions import caption
from skyreels_audio.synthetic.motion import FPS
from skyreels_audio.synthetic.subject import Subject

FRAMES = 113  # 4.5 s, 4n + 1
MAX_LAG = 8  # frames
UNTOUCHED = 99.0  # dB: stands for a picture that is the reference itself
JAW = list(CURVES).index("jaw")


def lips(bench: Workbench) -> list[Row]:
    """Held-out identity, voice and sentence: lip curves by the regressor; identity beside them."""
    count = 6 if bench.quick else 24
    made = [bench.cases(f"lips-{n:02d}", lambda n=n: _speak(bench, n)) for n in range(count)]
    true = [bench.truth(f"lips-{n:02d}", lambda n=n: _truth(bench, n)) for n in range(count)]
    coded = [bench.cases(f"lips-coded-{n:02d}", lambda n=n: _coded(bench, n)) for n in range(count // 3)]
    targets = [np.array(t["curves"]) for t in true]
    read = [np.array(m["curves"]) for m in made]
    ceiling = [np.array(t["read"]) for t in true]
    ceiling_coded = [np.array(c["read"]) for c in coded]
    people = f"{count} clips of {FRAMES / FPS:.1f} s, realistic look"
    jaw_ceiling = Ceiling(_column(ceiling, JAW), _column(targets, JAW), _column(ceiling_coded, JAW))
    rows = _agreement_rows(
        "lips, drawn people", _column(read, JAW), _column(targets, JAW), (0.5, 0.15), jaw_ceiling, people
    )
    for index, name in enumerate(CURVES):
        if index != JAW:
            r, best = (_mean_r(_column(c, index), _column(targets, index)) for c in (read, ceiling))
            rows.append(Row(f"lips, drawn people: {name}, r", r, ceiling=f"{best:.2f}", note=people))
    near, still = (float(np.mean([m[key] for m in made])) for key in ("lower_face", "lower_face_still"))
    after = float(np.mean([c["lower_face"] for c in coded]))
    rows.append(
        Row("lower face against the true video, drawn people", near, ("≥", still + 3), f"true codes {after:.1f} dB",
            baseline=f"still picture {still:.1f} dB", unit=" dB", digits=1, note="PSNR, same clips")
    )  # fmt: skip
    static = float(np.mean([m["static"] for m in made]))
    static_coded = float(np.mean([c["static"] for c in coded]))
    rows.append(
        Row("identity: what should not move", static, ("≥", 28.0), f"true codes {static_coded:.1f} dB", "", " dB", 1,
            "PSNR against the reference outside head and hair")
    )  # fmt: skip
    distances = [m["distance"] for m in made if m["distance"] is not None]
    true_distances = [t["distance"] for t in true if t["distance"] is not None]
    rows.append(
        Row("identity: face embedding distance", float(np.mean(distances)) if distances else None,
            ceiling=f"true video {np.mean(true_distances):.2f}" if true_distances else "",
            note="dlib's network, mean of 5 frames to the reference; one person: < 0.6" if distances
            else "needs dlib and face-recognition-models")
    )  # fmt: skip
    return rows


def _speak(bench: Workbench, number: int) -> dict:
    subject, known = drawn("test", number, "realistic")
    image, landmarks = portrait(bench.renderer, subject)
    said = voice(number, FRAMES / FPS)
    prompt = caption(known | SPEAKS, np.random.default_rng(number))
    frames = bench.generate(image, said.waveform, prompt, seed=number, motion=0.0)  # the true head is still
    true, _ = true_video(bench.renderer, subject, speaking_motion(said, number))
    lower = box_mask(true.lower_face_box_T4[0], image.shape)
    still = np.broadcast_to(image, true.frames.shape)
    return {
        "curves": lip_curves(frames, landmarks),
        "static": min(psnr(frames, still, static_mask(landmarks, image.shape)), UNTOUCHED),
        "lower_face": psnr(frames, true.frames, lower),
        "lower_face_still": psnr(still, true.frames, lower),
        "distance": _embedding_distance(image, frames),
    }


def _truth(bench: Workbench, number: int) -> dict:
    subject, _ = drawn("test", number, "realistic")
    image, landmarks = portrait(bench.renderer, subject)
    shown, curves = true_video(bench.renderer, subject, speaking_motion(voice(number, FRAMES / FPS), number))
    return {
        "curves": curves,
        "read": lip_curves(shown.frames, landmarks),
        "distance": _embedding_distance(image, shown.frames),
    }


def _coded(bench: Workbench, number: int) -> dict:
    subject, _ = drawn("test", number, "realistic")
    image, landmarks = portrait(bench.renderer, subject)
    motion = speaking_motion(voice(number, FRAMES / FPS), number)
    shown, _ = true_video(bench.renderer, subject, motion)
    frames, still = bench.true_codes(image, motion), np.broadcast_to(image, shown.frames.shape)
    return {
        "read": lip_curves(frames, landmarks),
        "lower_face": psnr(frames, shown.frames, box_mask(shown.lower_face_box_T4[0], image.shape)),
        "static": min(psnr(frames, still, static_mask(landmarks, image.shape)), UNTOUCHED),
    }


def _embedding_distance(image: np.ndarray, frames_FHWC: np.ndarray) -> float | None:
    """Mean over five frames of the distance to the picture, where both show a face; None without the networks."""
    try:
        distances = identity_distances(image, frames_FHWC[:: len(frames_FHWC) // 5][:5])
    except ImportError:
        return None
    return float(distances.mean()) if len(distances) else None


def pictures(bench: Workbench) -> list[Row]:
    """Photographs and paintings: the gap of the inner lips, by landmarks, against the known jaw."""
    rows = []
    for kind, subjects in (("photographs", _photographs(bench)), ("paintings and drawings", _paintings(bench))):
        made, true = [], []
        for number, (name, subject, image) in enumerate(subjects, start=100):
            said = voice(number, FRAMES / FPS)
            case = (bench, subject, image, said, number)
            made.append(bench.cases(f"picture-{name}", lambda case=case: _picture(*case)))
            true.append(bench.truth(f"picture-{name}", lambda case=case: _true_picture(*case)))
        if not made:
            rows.append(Row(f"lips, {kind}: r", None, ("≥", 0.3), note="no --photographs folder was given"))
            continue
        apertures, jaws = [np.array(m["aperture"]) for m in made], [np.array(t["jaw"]) for t in true]
        riggable = [(np.array(t["aperture"]), jaw) for t, jaw in zip(true, jaws, strict=True) if t["aperture"]]
        ceiling = Ceiling([read for read, _ in riggable], [jaw for _, jaw in riggable])
        note = f"{len(made)} clips of {FRAMES / FPS:.1f} s; gap of the inner lips by landmarks"
        rows += _agreement_rows(f"lips, {kind}", apertures, jaws, (0.75, 0.1), ceiling, note)
        sizes = [a.std() / b.std() for a, (b, _) in zip(apertures, riggable, strict=False)]
        rows.append(
            Row(f"lips, {kind}: amplitude over the true one", float(np.mean(sizes)), note="bar 0.85 to 1.15; aperture")
        )
        faced = [m for m in made if "lower_face" in m]
        near, still = (float(np.mean([m[key] for m in faced])) for key in ("lower_face", "lower_face_still"))
        rows.append(
            Row(f"lower face against the true video, {kind}", near, ("≥", still + 3), "", f"still {still:.1f} dB",
                " dB", 1, "PSNR, by voice")
        )  # fmt: skip
    return rows


def _photographs(bench: Workbench) -> Iterator[tuple[str, Subject, np.ndarray]]:
    if bench.photographs is None:
        return
    subjects, seen = photographed(bench.photographs, "test", np.random.default_rng(0)), set()
    while len(seen) < (3 if bench.quick else 8):
        subject, name = next(subjects)
        if name in seen:
            return
        seen.add(name)
        height, width = bench.size
        picture = Image.fromarray(subject.background.picture).resize((width, height), Image.Resampling.LANCZOS)
        yield name.rsplit(".", 1)[0], subject, np.asarray(picture)


def _paintings(bench: Workbench) -> Iterator[tuple[str, Subject | None, np.ndarray]]:
    """Drawn people in every look that is not realistic, and the pictures in the folder of examples."""
    for number, look in enumerate(list(LOOKS)[1 : 3 if bench.quick else None]):
        subject, _ = drawn("test", 500 + number, look)
        yield look.replace(" ", "-"), subject, portrait(bench.renderer, subject)[0]
    for path in sorted(p for p in bench.examples.rglob("*") if p.suffix in (".png", ".jpg")):
        image = media.read_image(path)
        if found := faces.detect_faces(image):
            yield path.stem, None, cut_portrait(image, found[0], bench.size)[0]


def _picture(bench: Workbench, subject: Subject | None, image: np.ndarray, said: Voice, number: int) -> dict:
    frames = bench.generate(image, said.waveform, "", seed=number, motion=0.0)
    result: dict[str, Any] = {"aperture": lip_aperture_curve(frames)}
    if subject is not None:
        shown, _ = true_video(bench.renderer, subject, speaking_motion(said, number))
        lower, still = box_mask(shown.lower_face_box_T4[0], image.shape), np.broadcast_to(image, shown.frames.shape)
        result["lower_face"] = psnr(frames, shown.frames, lower)
        result["lower_face_still"] = psnr(still, shown.frames, lower)
    return result


def _true_picture(bench: Workbench, subject: Subject | None, image: np.ndarray, said: Voice, number: int) -> dict:
    motion = speaking_motion(said, number)
    aperture = [] if subject is None else lip_aperture_curve(true_video(bench.renderer, subject, motion)[0].frames)
    return {"jaw": true_curves(motion.weights_TK)[:, JAW], "aperture": aperture}


def silence(bench: Workbench) -> list[Row]:
    """Two sentences with two seconds of silence between them."""
    numbers = range(200, 202 if bench.quick else 205)
    made = [bench.cases(f"silence-{n}", lambda n=n: _fall_silent(bench, n)) for n in numbers]
    true = [bench.truth(f"silence-{n}", lambda n=n: _true_silence(bench, n)) for n in numbers]
    ceiling = f"true video {np.mean([t['ratio'] for t in true]):.2f}"
    return [
        Row("silence: movement over that in speech", float(np.mean([m["ratio"] for m in made])), ("≤", 0.25), ceiling,
            note=f"{len(made)} voices; jaw curve's change per frame in 2 s of silence")
    ]  # fmt: skip


def _fall_silent(bench: Workbench, number: int) -> dict:
    image, landmarks = portrait(bench.renderer, drawn("test", number, "realistic")[0])
    said = broken_voice(number)
    frames = bench.generate(image, said.waveform, "A person speaks calmly, the head is still.", seed=number)
    curve = lip_curves(frames, landmarks)[:, JAW]
    return {"ratio": silence_ratio(curve, said.silent_F[: len(curve)]), "curve": curve}


def _true_silence(bench: Workbench, number: int) -> dict:
    subject, _ = drawn("test", number, "realistic")
    _, landmarks = portrait(bench.renderer, subject)
    said = broken_voice(number)
    shown, _ = true_video(bench.renderer, subject, speaking_motion(said, number))
    return {"ratio": silence_ratio(lip_curves(shown.frames, landmarks)[:, JAW], said.silent_F)}


def _column(curves: list[np.ndarray], index: int) -> list[np.ndarray]:
    return [curve[:, index] for curve in curves]


def _mean_r(read: list[np.ndarray], true: list[np.ndarray]) -> float:
    return float(np.mean([correlation(a, b) for a, b in zip(read, true, strict=False)]))


def _shuffled_r(read: list[np.ndarray], true: list[np.ndarray]) -> float:
    """Each video against every other clip's voice."""
    pairs = [correlation(a, b) for i, a in enumerate(read) for j, b in enumerate(true) if i != j]
    return float(np.mean(pairs)) if pairs else float("nan")


def _lag(read: list[np.ndarray], true: list[np.ndarray]) -> int:
    """Where the mean over clips of the lagged correlation is largest, frames."""
    lagged = [lagged_correlations(a, b, MAX_LAG) for a, b in zip(read, true, strict=False)]
    return int(np.mean(lagged, 0).argmax()) - MAX_LAG


def _agreement_rows(
    what: str, read: list[np.ndarray], true: list[np.ndarray], bars: tuple[float, float], ceiling: "Ceiling", note: str
) -> list[Row]:
    """r, lag and shuffled r of curves, beside those of the same curves read from true videos."""
    best, best_lag, best_shuffled = "", "", ""
    if ceiling.read:
        best = f"true video {_mean_r(ceiling.read, ceiling.true):.2f}"
        best_lag, best_shuffled = (
            f"{_lag(ceiling.read, ceiling.true)}",
            f"{_shuffled_r(ceiling.read, ceiling.true):.2f}",
        )
    if ceiling.coded:
        best += f", true codes {_mean_r(ceiling.coded, ceiling.true):.2f}"
    lag, shuffled = abs(_lag(read, true)), _shuffled_r(read, true)
    return [
        Row(f"{what}: jaw, r", _mean_r(read, true), ("≥", bars[0]), best, "still picture 0", note=note),
        Row(f"{what}: |best lag|, frames", lag, ("≤", 1), best_lag, digits=0, note="of the mean over clips"),
        Row(f"{what}: shuffled voices, r", shuffled, ("≤", bars[1]), best_shuffled, note="every other clip's voice"),
    ]


@dataclass(frozen=True)
class Ceiling:
    """Curves read from true videos, also after the autoencoder, and the true ones."""

    read: list[np.ndarray]
    true: list[np.ndarray]
    coded: list[np.ndarray] = field(default_factory=list)
