"""What a picture of a person shows, in the words of the captions: linear classifiers of crops, and head motion.

Fitted to rendered people by `python -m skyreels_audio.evaluation.attributes`; the weights ship with the package.
"""

from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from PIL import Image

from skyreels_audio import faces
from skyreels_audio.faces.landmarks import NOSE_TIP, face_box, face_height

WORDS = {
    "sex": ("woman", "man"),
    "skin": ("pale", "light", "olive", "brown", "dark"),
    "hair_colour": ("black", "dark brown", "brown", "blond", "red", "grey", "white"),
    "expression": ("neutral", "smiling"),
}
HEAD, MOUTH = 24, 20  # pixels of the crops' sides
GESTURE_BAND = 1.0, 2.6  # Hz of nods and shakes
STILL = 0.004  # face heights: below this a nose does not move


def features(frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Colours of the head and shape of the mouth, as one vector; landmarks are 68 or 478 points of the frame."""
    box, height = face_box(landmarks), face_height(landmarks)
    centre = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2 - 0.1 * height])
    points = faces.as_68(landmarks)
    corners = points[[48, 54]].mean(0)
    head, mouth = _cut(frame, centre, 1.5 * height, HEAD), _cut(frame, corners, 0.5 * height, MOUTH)
    grey = mouth.mean(-1)
    lips = (points[48:60] - corners) / height
    return np.concatenate([head.ravel(), ((grey - grey.mean()) / (grey.std() + 0.02)).ravel(), 10 * lips.ravel()])


def _cut(frame: np.ndarray, centre: np.ndarray, side: float, pixels: int) -> np.ndarray:
    """A square of the frame, what lies past its edges repeating them: float [pixels, pixels, 3], 0..1."""
    start = np.round(centre - side / 2).astype(int)
    rows, columns = (
        np.arange(s, s + round(side)).clip(0, n - 1) for s, n in zip(start[::-1], frame.shape, strict=False)
    )
    cut = Image.fromarray(frame[rows[:, None], columns])
    return np.asarray(cut.resize((pixels, pixels), Image.Resampling.BOX), np.float32) / 255


@cache
def _classifiers() -> dict[str, np.ndarray]:
    with as_file(files("skyreels_audio.evaluation") / "assets" / "attributes.npz") as path, np.load(path) as data:
        return {name: data[name].astype(np.float32) for name in data.files}


def classify(frames_FHWC: np.ndarray, landmarks_F: list[np.ndarray]) -> dict[str, str]:
    """The likeliest word of ``WORDS`` for each attribute, by the mean over some frames of one person."""
    weights = _classifiers()
    rows = np.stack([features(frame, points) for frame, points in zip(frames_FHWC, landmarks_F, strict=True)])
    rows = (rows - weights["mean"]) / weights["scale"]
    scores = {name: (rows @ weights[name][:-1] + weights[name][-1]).mean(0) for name in WORDS}
    return {name: WORDS[name][int(score.argmax())] for name, score in scores.items()}


def head_gesture(landmarks_F: list[np.ndarray], fps: float = 25.0) -> str:
    """ "still", "nodding" or "shaking": where the nose goes back and forth once or twice a second."""
    height = float(np.median([face_height(points) for points in landmarks_F]))
    nose_F2 = np.stack([faces.as_68(points)[NOSE_TIP] for points in landmarks_F]) / height
    spectrum = np.fft.rfft(nose_F2 - nose_F2.mean(0), axis=0)
    frequency = np.fft.rfftfreq(len(nose_F2), 1 / fps)
    band = (frequency >= GESTURE_BAND[0]) & (frequency <= GESTURE_BAND[1])
    across, up = np.sqrt(2 * np.square(np.abs(spectrum[band])).sum(0)) / len(nose_F2)
    if max(across, up) < STILL:
        return "still"
    return "nodding" if up > across else "shaking"


def background_colour(frame: np.ndarray, static_HW: np.ndarray) -> str:
    """The word for the mean colour of the upper half of what does not move, where there are no clothes."""
    from skyreels_audio.synthetic.background import colour_word

    upper = static_HW.copy()
    upper[frame.shape[0] // 2 :] = False
    return colour_word(frame[upper].mean(0) / 255)


def fit(output: Path, people: int = 500, seed: int = 0) -> dict[str, float]:
    """Render people, fit the classifiers, save them (npz), and return their accuracy on the last sixth."""
    import torch

    rows, labels = examples(people, seed)
    held_out = np.arange(len(rows)) >= len(rows) * 5 // 6
    mean, scale = rows[~held_out].mean(0), rows[~held_out].std(0) + 0.05
    rows = (rows - mean) / scale
    weights, accuracy = {"mean": mean, "scale": scale}, {}
    for name, words in WORDS.items():
        known = np.array([label[name] in words for label in labels])
        target = np.array([words.index(label[name]) if label[name] in words else 0 for label in labels])
        train, test = known & ~held_out, known & held_out
        x, y = torch.from_numpy(rows[train]).float(), torch.from_numpy(target[train])
        matrix = torch.zeros(x.shape[1] + 1, len(words), requires_grad=True)
        solver = torch.optim.LBFGS([matrix], max_iter=200, line_search_fn="strong_wolfe")

        def loss(x=x, y=y, matrix=matrix, solver=solver) -> torch.Tensor:
            solver.zero_grad()
            value = torch.nn.functional.cross_entropy(x @ matrix[:-1] + matrix[-1], y)
            value = value + 0.02 * matrix[:-1].square().sum()
            value.backward()
            return value

        solver.step(loss)  # pyright: ignore[reportArgumentType]
        weights[name] = matrix.detach().numpy()
        guess = (rows[test] @ weights[name][:-1] + weights[name][-1]).argmax(1)
        accuracy[name] = float((guess == target[test]).mean())
    output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(output, **{name: value.astype(np.float16) for name, value in weights.items()})
    return accuracy


def examples(people: int, seed: int) -> tuple[np.ndarray, list[dict[str, str | None]]]:
    """Features and words of drawn people: each neutral and smiling, with a mouth that speaks."""
    from tqdm import tqdm

    from skyreels_audio.evaluation.subjects import drawn
    from skyreels_audio.synthetic.motion import Manner, animate
    from skyreels_audio.synthetic.render import Renderer
    from skyreels_audio.synthetic.visemes import VISEME_CHANNELS

    renderer, rows, labels = Renderer(256), [], []
    for person in tqdm(range(people), desc="people"):
        rng = np.random.default_rng([seed, person])
        subject, known = drawn("train", 1_000_000 + person, "realistic")  # a pencil drawing has no hair colour
        for expression in WORDS["expression"]:
            shapes = rng.uniform(0, 0.7, (1, len(VISEME_CHANNELS))) * (rng.random((1, len(VISEME_CHANNELS))) < 0.3)
            shapes = shapes.astype(np.float32)
            motion = animate(shapes, np.ones(1, np.float32), rng, Manner(expression, "lively"), 1)
            shown = renderer.render(subject, motion)
            points = shown.landmarks_T682[0] + rng.normal(size=(68, 2)) * 0.01 * face_height(shown.landmarks_T682[0])
            rows.append(features(shown.frames[0], points))
            labels.append(known | {"expression": expression})
    return np.stack(rows).astype(np.float32), labels


if __name__ == "__main__":
    print(fit(Path(__file__).parent / "assets" / "attributes.npz"))
