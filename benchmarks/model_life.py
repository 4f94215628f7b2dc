"""How a checkpoint's portraits look and live: sharpness, colour, seams, rest, blinks, head, and what words do to them.

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
from skyreels_audio.evaluation.motion import blink_rate, track_landmarks
from skyreels_audio.evaluation.quality import psnr
from skyreels_audio.models.motion_autoencoder import CHANNELS
from skyreels_audio.synthetic.photograph import split

FPS, SECONDS = 25.0, 6.0
STRIDE = 8  # pixels of the decoder's second coarsest cells, in its frame: where a seam would be seen
MOVES = 0.02  # dead band of an action, as a share of its range
# What words ask for, and the channel in which it must show, over the same voice without a prompt.
EXPRESSIONS = {
    "A person who is smiling.": ("mouthSmile", 1),
    "A sad person speaks.": ("mouthFrown", 1),
    "A surprised person with raised eyebrows.": ("browOuterUp", 1),
    "An angry person who frowns.": ("browDown", 1),
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
        Row("mouth's sharpness over the picture's", mean("sharpness"), ("≥", 0.7), note=f"bar 0.7 to 1.2; {told}"),
        Row("steps across cells of 8 pixels over steps elsewhere", mean("tiles"), ("≤", 1.05),
            baseline=f"still picture {mean('tiles_still'):.2f}", note=told),
        Row("silence: drift of lip colour, ΔE", mean("drift"), ("≤", 2), note=told),
        Row("silence: a smiling picture against itself", float(np.mean(smiling)) if smiling else None, ("≥", 35),
            unit=" dB", digits=1, note=f"{len(smiling)} of them show teeth; mouth box"),
        Row("blinks per minute", mean("blinks"), ("≥", 10), digits=1, note="bar 10 to 20; by landmarks"),
        Row("head: yaw and pitch, standard deviation", mean("head"), ("≥", 1), unit="°", digits=1, note="bar 1 to 3"),
        Row("head: jitter", mean("jitter"), unit="°", digits=3, note="mean second difference of yaw and pitch a frame"),
        Row("prompt: expression as asked", float(np.mean(expressions)), ("≥", 0.8), baseline="chance 0.5",
            note=f"{len(expressions)} prompts: the asked action is stronger than unprompted, same voice and seed"),
        Row("prompt: motion as asked (of 3)", float(np.mean(gestures)), ("≥", 0.8), baseline="chance 0.33",
            note=f"{len(gestures)} prompts: nodding, shaking, still by the spectrum of yaw and pitch"),
    ]  # fmt: skip


def _pictures(bench: Workbench) -> Iterator[tuple[str, np.ndarray]]:
    """Photographs of the test split, every second one of a smiling person, and the examples."""
    if bench.photographs is not None:
        names = sorted(p.name for p in bench.photographs.iterdir() if p.suffix in (".jpg", ".png"))
        names = [name for name in names if split(name) == "test"]
        count = 4 if bench.quick else 12
        for name in (names[i] for i in np.linspace(0, len(names) - 1, count, dtype=int)):
            yield name.rsplit(".", 1)[0], media.read_image(bench.photographs / name)
    for path in sorted(bench.examples.glob("*.png")):
        yield path.stem, media.read_image(path)


def _live(bench: Workbench, image: np.ndarray, number: int) -> dict:
    image = cut_portrait(image, faces.detect_faces(image)[0], bench.size)[0]
    own = faces.as_68(faces.detect_faces(image)[0].landmarks)[None, :, :2]
    said = voice(700 + number, SECONDS)
    frames = bench.generate(image, said.waveform, "", seed=number)
    points = track_landmarks(frames)
    mouth = _mouth(own[0], image.shape)
    still = bench.generate(image, np.zeros(round(16000 * 2.0), np.float32), "", seed=number, motion=0.0)
    rest, drift = still[-1], colour_drift(lip_colours(still[::5], np.repeat(own, len(still[::5]), 0)),
                                          lip_colours(image[None], own)[0])  # fmt: skip
    codes = bench.pipe.generate_motion(said.waveform, generator=torch.Generator().manual_seed(number))
    head = np.degrees(codes[:, [CHANNELS.index("yaw"), CHANNELS.index("pitch")]].float().numpy())
    return {
        "sharpness": mouth_sharpness(frames, points, image[None], own),
        "tiles": tile_border_ratio(frames, STRIDE, mouth),
        "tiles_still": tile_border_ratio(image[None], STRIDE, mouth),
        "drift": drift,
        "rest": psnr(rest, image, mouth),
        "smiles": bool(faces.lip_aperture(faces.detect_faces(image)[0].landmarks) > 0.02),
        "blinks": blink_rate(points),
        "head": float(np.hypot(*head.std(0))),
        "jitter": float(np.abs(np.diff(head, 2, axis=0)).mean()),
    }


def _mouth(points_682: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The box of the lips and chin: bool [H, W]."""
    low, high = points_682[4:68].min(0), points_682[4:68].max(0)
    lips = points_682[48:]
    top, left, right = lips[:, 1].min(), lips[:, 0].min(), lips[:, 0].max()
    mask = np.zeros(shape[:2], bool)
    wide = 0.25 * (right - left)
    mask[int(max(top, low[1])) : int(high[1]) + 1, int(left - wide) : int(right + wide) + 1] = True
    return mask


def _prompted(bench: Workbench, number: int) -> dict:
    said = voice(800 + number, SECONDS).waveform

    def move(prompt: str) -> np.ndarray:
        generator = torch.Generator().manual_seed(number)
        return bench.pipe.generate_motion(said, prompt, generator=generator).float().numpy()

    plain = move("")
    expressions = []
    for prompt, (name, sign) in EXPRESSIONS.items():
        channel = CHANNELS.index(name)
        change = sign * (move(prompt)[:, channel].mean() - plain[:, channel].mean())
        expressions.append(float(change > MOVES))
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
