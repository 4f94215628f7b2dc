"""How a checkpoint's portraits look and live: sharpness, colour, tiles, rest, blinks, head, and what words do to them.

The pictures are photographs of people whom no training saw, smiling ones among them, and the examples' paintings.
"""

from collections.abc import Iterator

import numpy as np
import torch
from model_picture import cut_portrait
from table import Row
from workbench import Workbench

from skyreels_audio import faces, media
from skyreels_audio.evaluation.artefacts import (
    colour_drift,
    lip_colours,
    mouth_sharpness,
    tile_border_ratio,
)
from skyreels_audio.evaluation.held_out import voice
from skyreels_audio.evaluation.motion import aperture, blink_rate, track_landmarks
from skyreels_audio.evaluation.quality import psnr
from skyreels_audio.models.motion_autoencoder import CHANNELS
from skyreels_audio.synthetic.photograph import split

FPS, SECONDS, SILENCE = 25.0, 6.0, 3.0
TALKING = 0.02  # gap of the inner lips over the face's height from which a mouth is open
EXACT = 99.0  # dB that stand for no difference at all
STRIDE = 8  # pixels of the decoder's second coarsest cells, in its frame: where a seam would be seen
MOVES = 0.02  # by how much an action must be stronger, as a share of its range
# What words ask for, and the action in which it must show, over the same voice without a prompt.
EXPRESSIONS = {
    "A person who is smiling.": "mouthSmile",
    "A sad person speaks.": "mouthFrown",
    "A surprised person with raised eyebrows.": "browOuterUp",
    "An angry person who frowns.": "browDown",
}
GESTURES = {
    "The head is nodding.": "pitch",
    "The head is shaking.": "yaw",
    "The head is still.": None,
}


def life(bench: Workbench) -> list[Row]:
    shown = [bench.cases(f"life-{name}", lambda image=image, n=n: _live(bench, image, n)) for n, (name, image) in
             enumerate(_pictures(bench))]  # fmt: skip
    prompted = [bench.cases(f"prompted-{n}", lambda n=n: _prompted(bench, n)) for n in range(2 if bench.quick else 6)]
    told = f"{len(shown)} pictures of held-out people and paintings, {SECONDS:g} s each"
    mean = lambda name: float(np.mean([case[name] for case in shown]))  # noqa: E731
    smiling = [case["rest"] for case in shown if case["smiles"]]
    gestures, expressions = ([v for case in prompted for v in case[kind]] for kind in ("gestures", "expressions"))
    return [
        Row("open mouth's sharpness over the picture's", mean("sharpness"), ("≥", 0.7), note=f"bar 0.7 to 1.2; {told}"),
        Row("steps across cells of 8 pixels over steps elsewhere", mean("tiles"), ("≤", 1.05),
            baseline=f"still picture {mean('tiles_still'):.2f}", note=told),
        Row("silence: drift of lip colour, ΔE", mean("drift"), ("≤", 2), note=told),
        Row("silence: a smiling picture against itself", float(np.mean(smiling)) if smiling else None, ("≥", 35),
            unit=" dB", digits=1, note=f"{len(smiling)} of them show teeth; mouth box, --motion 0; 99: no difference"),
        Row("blinks per minute", mean("blinks"), ("≥", 10), digits=1, note="bar 10 to 20; by landmarks"),
        Row("head: yaw and pitch, standard deviation", mean("head"), ("≥", 1), unit="°", digits=1, note="bar 1 to 3"),
        Row("head: jitter", mean("jitter"), unit="°", digits=3, note="mean second difference of yaw and pitch a frame"),
        Row("prompt: expression as asked", float(np.mean(expressions)), ("≥", 0.8), baseline="chance 0.5",
            note=f"{len(expressions)} prompts; the action's code is stronger than unprompted, same voice and seed"),
        Row("prompt: motion as asked (of 3)", float(np.mean(gestures)), ("≥", 0.8), baseline="chance 0.33",
            note=f"{len(gestures)} prompts: nodding, shaking, still by the spectrum of yaw and pitch"),
    ]  # fmt: skip


def _pictures(bench: Workbench) -> Iterator[tuple[str, np.ndarray]]:
    """Photographs of the test split, evenly spaced by name, smiling ones among them, and the examples."""
    if bench.photographs is not None:
        names = sorted(p.name for p in bench.photographs.iterdir() if p.suffix in (".jpg", ".png"))
        names = [name for name in names if split(name) == "test"]
        count = 4 if bench.quick else 12
        for name in (names[i] for i in np.linspace(0, len(names) - 1, count, dtype=int)):
            yield name.rsplit(".", 1)[0], media.read_image(bench.photographs / name)
    for path in sorted(p for p in bench.examples.iterdir() if p.suffix in (".png", ".jpg")):
        yield path.stem, media.read_image(path)


def _live(bench: Workbench, image: np.ndarray, number: int) -> dict:
    image = cut_portrait(image, faces.detect_faces(image)[0], bench.size)[0]
    found = faces.detect_faces(image)[0].landmarks
    own_682, said = faces.as_68(found)[:, :2], voice(700 + number, SECONDS)
    mouth = _mouth(own_682, image.shape)
    frames = bench.generate(image, said.waveform, "", seed=number)
    points = track_landmarks(frames)
    talking = aperture(points) > TALKING
    silence_n = np.zeros(round(16000 * SILENCE), np.float32)
    quiet = bench.generate(image, silence_n, "", seed=number)[::5]
    rest = bench.generate(image, silence_n, "", seed=number, motion=0.0)[-1]
    codes = bench.pipe.generate_motion(said.waveform, generator=torch.Generator().manual_seed(number))
    head = np.degrees(codes[:, [CHANNELS.index("yaw"), CHANNELS.index("pitch")]].float().numpy())
    return {
        "sharpness": mouth_sharpness(frames[talking], points[talking], image[None], own_682[None]),
        "tiles": tile_border_ratio(frames, STRIDE, mouth),
        "tiles_still": tile_border_ratio(image[None], STRIDE, mouth),
        "drift": colour_drift(lip_colours(quiet, track_landmarks(quiet)), lip_colours(image[None], own_682[None])[0]),
        "rest": min(psnr(rest, image, mouth), EXACT),
        "smiles": bool(faces.lip_aperture(found) > TALKING),
        "blinks": blink_rate(points),
        "head": float(np.hypot(*head.std(0))),
        "jitter": float(np.abs(np.diff(head, 2, axis=0)).mean()),
    }


def _mouth(points_682: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The box from the upper lip to the chin, half as wide again as the mouth: bool [H, W]."""
    (left, top), (right, _) = points_682[48:].min(0), points_682[48:].max(0)
    wide, bottom = (right - left) / 4, points_682[:17, 1].max()
    mask = np.zeros(shape[:2], bool)
    mask[int(top) : int(bottom) + 1, int(left - wide) : int(right + wide) + 1] = True
    return mask


def _prompted(bench: Workbench, number: int) -> dict:
    said = voice(800 + number, SECONDS).waveform

    def move(prompt: str) -> np.ndarray:
        generator = torch.Generator().manual_seed(number)
        return bench.pipe.generate_motion(said, prompt, generator=generator).float().numpy()

    plain = move("")
    expressions = []
    for prompt, name in EXPRESSIONS.items():
        channel = CHANNELS.index(name)
        expressions.append(float(move(prompt)[:, channel].mean() > plain[:, channel].mean() + MOVES))
    gestures = [float(_gesture(move(prompt)) == wanted) for prompt, wanted in GESTURES.items()]
    return {"expressions": expressions, "gestures": gestures}


def _gesture(codes_FN: np.ndarray) -> str | None:
    """Which angle goes back and forth once or twice a second, by more than a degree."""
    angles = np.degrees(codes_FN[:, [CHANNELS.index("yaw"), CHANNELS.index("pitch")]])
    spectrum = np.fft.rfft(angles - angles.mean(0), axis=0)
    frequency = np.fft.rfftfreq(len(angles), 1 / FPS)
    band = (frequency > 0.7) & (frequency < 3.0)
    yaw, pitch = np.sqrt(2 * np.square(np.abs(spectrum[band])).sum(0)) / len(angles)
    if max(yaw, pitch) < 1.0:
        return None
    return "yaw" if yaw > pitch else "pitch"
