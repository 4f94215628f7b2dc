"""How a drawn person looks: colours, hair, clothes, light, lens and the manner of the picture, each with its word.

Colours that light falls on are linear RGB. Words are for captions: chosen with what is drawn, never guessed from it.
"""

import colorsys
from dataclasses import dataclass

import numpy as np

from skyreels_audio.faces.framing import FACE_CENTRE, FACE_HEIGHT
from skyreels_audio.synthetic.background import colour_word
from skyreels_audio.synthetic.rig import Identity

SKIN_TONES = (  # linear albedo from the lightest to the darkest
    ("pale", (0.72, 0.52, 0.42)),
    ("light", (0.60, 0.39, 0.285)),
    ("olive", (0.44, 0.275, 0.175)),
    ("brown", (0.235, 0.125, 0.070)),
    ("dark", (0.085, 0.045, 0.028)),
)
HAIR_COLOURS = {
    "black": (0.012, 0.010, 0.009),
    "dark brown": (0.035, 0.020, 0.012),
    "brown": (0.085, 0.045, 0.022),
    "blond": (0.36, 0.23, 0.10),
    "red": (0.22, 0.065, 0.020),
    "grey": (0.24, 0.235, 0.23),
    "white": (0.60, 0.59, 0.57),
}
HAIR_VOLUME = {  # style → metres that the hair stands off the scalp
    "bald": 0.0,
    "cropped": 0.003,
    "short": 0.012,
    "swept back": 0.018,
    "curly": 0.028,
    "bob": 0.016,
    "long": 0.015,
}
EYE_COLOURS = {
    "dark brown": (0.035, 0.015, 0.007),
    "brown": (0.10, 0.045, 0.016),
    "hazel": (0.14, 0.10, 0.035),
    "green": (0.10, 0.16, 0.075),
    "blue": (0.08, 0.16, 0.30),
    "grey": (0.17, 0.20, 0.22),
}
LOOKS = {  # manner of the picture → uniforms of look.frag; None is a plain rendering
    "realistic": None,
    "cartoon": dict(levels=5.0, outline=0.85, saturation=1.25),
    "poster": dict(levels=3.5, outline=0.3, saturation=1.4, contrast=1.15),
    "painting": dict(levels=9.0, canvas=0.05, saturation=1.15),
    "pencil drawing": dict(levels=7.0, outline=1.0, saturation=0.0, canvas=0.05, contrast=1.1),
    "sepia photograph": dict(sepia=1.0, saturation=0.0, canvas=0.025),
    "black-and-white photograph": dict(saturation=0.0, contrast=1.1),
}


@dataclass(frozen=True)
class Light:
    key_direction: tuple[float, float, float]  # unit, towards the light
    key_colour: tuple[float, float, float]
    fill_direction: tuple[float, float, float]
    fill_colour: tuple[float, float, float]
    sky: tuple[float, float, float]  # ambient light from above
    ground: tuple[float, float, float]  # and from below
    word: str  # "soft", "warm", "cool", "dramatic"


@dataclass(frozen=True)
class Framing:
    """Camera before motion: angles in radians around the head, and where the face mesh's box lies in the frame."""

    field_of_view: float
    yaw: float
    pitch: float
    roll: float
    face_height: float  # of the frame's height
    face_centre: tuple[float, float]  # in the frame, from its top left


@dataclass(frozen=True)
class Appearance:
    skin: tuple[float, float, float]
    skin_word: str
    lips: tuple[float, float, float]
    lips_word: str  # "natural" or the lipstick's colour
    hair: tuple[float, float, float]
    hair_word: str
    hair_style: str  # a key of HAIR_VOLUME
    hair_volume: float  # metres
    hairline: float  # height on the template's forehead, metres
    curl: float  # 0 straight .. 1
    parting: float  # −1 right .. 1 left
    brow: tuple[float, float, float]
    brow_shape: tuple[float, float, float, float]  # thickness, arch, height, density
    beard: str  # "none", "stubble", "moustache", "goatee", "full"
    stubble: float  # density, 0..1
    iris: tuple[float, float, float]
    iris_word: str
    lower_lashes: float  # 0..1, how dark
    iris_size: float  # radians, seen from the eyeball's centre
    teeth: tuple[float, float, float]
    cloth: tuple[float, float, float]
    cloth_second: tuple[float, float, float]
    cloth_pattern: int  # plain, striped, mottled, trimmed
    cloth_word: str
    collar: float  # metres above an ordinary neckline
    texture_strength: float
    gloss: float
    lip_gloss: float
    blush: float
    freckles: float
    shadow_under_eyes: float
    light: Light
    framing: Framing
    look: str  # a key of LOOKS
    seed: float  # of the drawn noise


def sample_appearance(seed: int, identity: Identity) -> Appearance:
    """Looks for a person: loosely tied to ancestry, sex and age, otherwise free."""
    rng = np.random.default_rng([seed, 2])
    male, old = identity.sex == "man", identity.age > 55
    child = identity.age_group == "child"
    tone = float(np.clip(3.8 * identity.african + 1.7 * identity.asian + rng.normal() * 0.8, 0, 4))
    skin = _between([t for _, t in SKIN_TONES], tone) * rng.uniform(0.92, 1.08) * (1 + 0.03 * rng.normal(size=3))
    lips, lips_word = _lips(rng, skin, may_be_painted=not male and not child)
    hair_word = _hair_word(rng, identity, tone)
    hair = np.array(HAIR_COLOURS[hair_word]) * rng.uniform(0.8, 1.25)
    style = _hair_style(rng, male, child, identity)
    beard = (
        "none"
        if child or not male
        else str(rng.choice(["none", "stubble", "moustache", "goatee", "full"], p=[0.45, 0.25, 0.08, 0.08, 0.14]))
    )
    iris_shares = [0.85, 0.15, 0, 0, 0, 0] if tone > 2 else [0.1, 0.25, 0.15, 0.12, 0.26, 0.12]
    iris_word = str(rng.choice(list(EYE_COLOURS), p=iris_shares))
    cloth = _cloth(rng)
    brow = hair * rng.uniform(0.45, 0.9) if hair_word not in ("blond", "white") else hair * 0.5 + 0.02
    realistic = rng.uniform() < 0.86
    return Appearance(
        skin=_colour(skin),
        skin_word=SKIN_TONES[round(tone)][0],
        lips=_colour(lips),
        lips_word=lips_word,
        hair=_colour(hair),
        hair_word=hair_word,
        hair_style=style,
        hair_volume=HAIR_VOLUME[style] * float(rng.uniform(0.8, 1.25)),
        hairline=float(rng.uniform(0.795, 0.818) + (0.012 if old and male else 0)),
        curl=float(rng.uniform(0.7, 1.0) if style == "curly" else rng.uniform(0, 0.35)),
        parting=float(rng.uniform(-1, 1)),
        brow=_colour(brow),
        brow_shape=_brow_shape(rng, male),
        beard=beard,
        stubble=float({"none": 0.12 * male * (not child), "stubble": 0.45}.get(beard, 0.9) * rng.uniform(0.7, 1.1)),
        iris=_colour(np.array(EYE_COLOURS[iris_word]) * rng.uniform(0.8, 1.3)),
        iris_word=iris_word,
        lower_lashes=float(rng.uniform(0.0, 0.2) if male or child else rng.uniform(0.1, 0.6)),
        iris_size=float(rng.uniform(0.44, 0.50)),
        teeth=_colour(np.array([0.80, 0.75, 0.65]) * rng.uniform(0.75, 1.1)),
        cloth=_colour(cloth),
        cloth_second=_colour(_cloth(rng)),
        cloth_pattern=int(rng.choice(4, p=[0.55, 0.15, 0.1, 0.2])),
        cloth_word=colour_word(cloth ** (1 / 2.2)),
        collar=float(rng.choice([-0.03, 0.0, 0.03]) + rng.uniform(-0.008, 0.008)),
        texture_strength=float(rng.uniform(0.12, 0.45)),
        gloss=float(rng.uniform(0.05, 0.35)),
        lip_gloss=float(rng.uniform(0.1, 0.5) if lips_word == "natural" else rng.uniform(0.3, 1.0)),
        blush=float(rng.uniform(0.1, 0.9)),
        freckles=float(rng.uniform(0.3, 1.0) if rng.uniform() < 0.3 else 0.0),
        shadow_under_eyes=float(rng.uniform(0.05, 0.25) + 0.15 * old),
        light=_light(rng),
        framing=_framing(rng),
        look="realistic" if realistic else str(rng.choice(list(LOOKS)[1:])),
        seed=float(rng.uniform(0, 50)),
    )


def _lips(rng, skin: np.ndarray, may_be_painted: bool) -> tuple[np.ndarray, str]:
    natural = skin * [0.78, 0.50, 0.50] * rng.uniform(0.8, 1.05) + [0.02, 0.0, 0.005]
    if not may_be_painted or rng.uniform() >= 0.4:
        return natural, "natural"
    hue, saturation, value = rng.uniform(-0.07, 0.04) % 1, rng.uniform(0.55, 0.9), rng.uniform(0.3, 0.8)
    painted = np.array(colorsys.hsv_to_rgb(hue, saturation, value))
    return 0.35 * skin + 0.65 * painted**2.2, colour_word(painted)


def _brow_shape(rng, male: bool) -> tuple[float, float, float, float]:
    return (
        float(rng.uniform(0.75, 1.35) if male else rng.uniform(0.5, 1.0)),
        float(rng.uniform(0.1, 0.9) if male else rng.uniform(0.4, 1.4)),
        float(0.0025 * rng.normal()),
        float(rng.uniform(0.6, 0.95)),
    )


def _hair_word(rng, identity: Identity, tone: float) -> str:
    if rng.uniform() < np.clip((identity.age - 42) / 40, 0, 0.85):
        return "white" if rng.uniform() < (identity.age - 50) / 50 else "grey"
    shares = [0.75, 0.2, 0.05, 0, 0, 0, 0] if tone > 2 else [0.12, 0.26, 0.28, 0.22, 0.12, 0, 0]
    return str(rng.choice(list(HAIR_COLOURS), p=shares))


def _hair_style(rng, male: bool, child: bool, identity: Identity) -> str:
    if male:
        shares = np.array([0.02 if child else 0.14, 0.26, 0.34, 0.12, 0.08, 0.03, 0.03])
    else:
        shares = np.array([0.01, 0.05, 0.14, 0.18, 0.14, 0.22, 0.26])
    shares[4] += 0.3 * identity.african
    return str(rng.choice(list(HAIR_VOLUME), p=shares / shares.sum()))


def _light(rng) -> Light:
    word = str(rng.choice(["soft", "warm", "cool", "dramatic"], p=[0.45, 0.2, 0.2, 0.15]))
    tint = {"warm": np.array([1.12, 1.0, 0.82]), "cool": np.array([0.90, 1.0, 1.14])}.get(word, np.ones(3))
    tint = tint * (1 + 0.03 * rng.normal(size=3))
    ambient, key = (0.16, 1.5) if word == "dramatic" else (rng.uniform(0.35, 0.6), rng.uniform(0.7, 1.05))
    side = rng.normal() * (0.4 if word != "dramatic" else 0.2) + (rng.choice([-1.5, 1.5]) if word == "dramatic" else 0)
    return Light(
        key_direction=_unit(1.1 * side, -1, 0.65 + 0.35 * rng.normal()),
        key_colour=_triple(key * tint),
        fill_direction=_unit(-np.sign(side) * rng.uniform(0.8, 2.5), -rng.uniform(-0.4, 1.0), rng.uniform(-0.2, 0.6)),
        fill_colour=_triple(rng.uniform(0.05, 0.45) * (2.0 - tint) * (1 + 0.12 * rng.normal(size=3))),
        sky=_triple(ambient * (2.0 - tint) * 1.1),
        ground=_triple(ambient * 0.55 * np.array([1.05, 1.0, 0.92])),
        word=word,
    )


def _framing(rng) -> Framing:
    return Framing(
        field_of_view=float(rng.uniform(0.16, 0.45)),
        yaw=float(0.09 * rng.normal()),
        pitch=float(0.06 * rng.normal()),
        roll=float(0.03 * rng.normal()),
        face_height=FACE_HEIGHT + float(rng.uniform(-0.08, 0.10)),
        face_centre=(
            FACE_CENTRE[0] + float(rng.uniform(-0.04, 0.04)),
            FACE_CENTRE[1] + float(rng.uniform(-0.03, 0.03)),
        ),
    )


def _cloth(rng) -> np.ndarray:
    saturation = rng.uniform(0, 0.3) if rng.uniform() < 0.5 else rng.uniform(0.3, 0.9)
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), saturation, rng.uniform(0.08, 0.95))) ** 2.2


def _between(stops, position: float) -> np.ndarray:
    return np.array([np.interp(position, range(len(stops)), channel) for channel in zip(*stops, strict=True)])


def _colour(values) -> tuple[float, float, float]:
    return _triple(np.clip(values, 0.004, 0.95))


def _triple(values) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z


def _unit(x: float, y: float, z: float) -> tuple[float, float, float]:
    return _triple(np.array([x, y, z]) / np.sqrt(x * x + y * y + z * z))
