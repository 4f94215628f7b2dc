"""Drawn portraits as nearly a function of a code: who is seen, how they look, light and background; words for them.

A portrait stands where ``faces.framing`` wants it, frontal, its face at rest; what noise draws (skin, strands) is the
same in all. Shapes: C channel of the code, H W pixels.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from PIL import Image

from skyreels_audio.faces.framing import FACE_CENTRE, FACE_HEIGHT
from skyreels_audio.models.portrait_code import CHOICES, COLOURS, COMPONENTS, GRID, backdrop
from skyreels_audio.synthetic.appearance import HAIR_VOLUME, Appearance, Framing, Light, sample_appearance
from skyreels_audio.synthetic.background import SIDE, Background, colour_word, sample_background
from skyreels_audio.synthetic.captions import Attributes, background_attributes, person_attributes
from skyreels_audio.synthetic.motion import Motion
from skyreels_audio.synthetic.person import aligned_view, dress
from skyreels_audio.synthetic.render import Renderer
from skyreels_audio.synthetic.rig import ACTIONS, Identity, Rig
from skyreels_audio.synthetic.subject import Subject

FRAMING = Framing(0.28, 0.0, 0.0, 0.0, FACE_HEIGHT, FACE_CENTRE)
STUBBLE = {"none": 0.1, "stubble": 0.4}  # density; of the other beards 0.9
CLOUDS = 0.05  # deviation of a mottled background
FIXED = dict(
    framing=FRAMING, look="realistic", seed=7.0, parting=0.3, hairline=0.806, collar=0.0, cloth_pattern=0,
    texture_strength=0.25, gloss=0.2, lip_gloss=0.3, blush=0.4, freckles=0.0, shadow_under_eyes=0.12, iris_size=0.47,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Portrait:
    code_C: np.ndarray  # float32, see ``models.portrait_code``
    attributes: Attributes  # with "ancestry": "african", "asian", "european" or None
    identity: Identity
    appearance: Appearance
    background: Background


def sample_portrait(seed: int) -> Portrait:
    """The portrait of a seed; no picture is drawn yet."""
    rng = np.random.default_rng([seed, 4])
    identity = Rig.load().identity(seed, COMPONENTS)
    sampled = sample_appearance(seed, identity)
    side = float(rng.choice([-1.5, 1.5]) if sampled.light.word == "dramatic" else 0.4 * rng.normal())
    appearance = _plain(sampled, identity, side)
    walls = sample_background(rng)
    colours_GG3 = np.asarray(Image.fromarray(walls.picture).resize((GRID, GRID), Image.Resampling.BOX)) / 255
    background = draw_background(walls.kind, colours_GG3)
    mean = colours_GG3.mean((0, 1))
    numbers = [mean, (colours_GG3 - mean).transpose(2, 0, 1), identity.coefficients_C[:COMPONENTS]]
    numbers += [identity.age / 90, identity.african, identity.asian, side]
    numbers += [np.sqrt(getattr(appearance, name)) for name in COLOURS]
    chosen = {"sex": identity.sex, "hair_style": appearance.hair_style, "beard": appearance.beard}
    chosen |= {"background": walls.kind, "light": appearance.light.word}
    choices = [[choice == chosen[name] for choice in options] for name, options in CHOICES.items()]
    attributes = person_attributes(identity, appearance) | background_attributes(background)
    shares = {"african": identity.african, "asian": identity.asian}
    shares["european"] = 1 - sum(shares.values())
    ancestry = max(shares, key=lambda name: shares[name])
    attributes["ancestry"] = ancestry if shares[ancestry] > 0.6 else None
    code_C = np.concatenate([np.ravel(part) for part in (*numbers, *choices)]).astype(np.float32)
    return Portrait(code_C, attributes, identity, appearance, background)


def _plain(sampled: Appearance, identity: Identity, side: float) -> Appearance:
    """An appearance of which nothing varies but what the code holds."""
    male, child = identity.sex == "man", identity.age_group == "child"
    hair = np.array(sampled.hair)
    return replace(
        sampled,
        **FIXED,
        brow=tuple(0.6 * hair if hair.max() < 0.3 else 0.5 * hair + 0.02),
        brow_shape=(1.05, 0.5, 0.0, 0.8) if male else (0.75, 0.9, 0.0, 0.8),
        hair_volume=HAIR_VOLUME[sampled.hair_style],
        curl=0.85 if sampled.hair_style == "curly" else 0.2,
        stubble=STUBBLE.get(sampled.beard, 0.9) * (male and not child),
        lower_lashes=0.1 if male or child else 0.35,
        cloth_second=sampled.cloth,
        light=_light(sampled.light.word, side),
    )


def _light(word: str, side: float) -> Light:
    tint = {"warm": np.array([1.12, 1.0, 0.82]), "cool": np.array([0.90, 1.0, 1.14])}.get(word, np.ones(3))
    ambient, key = (0.16, 1.5) if word == "dramatic" else (0.48, 0.9)
    direction = np.array([1.1 * side, -1, 0.65])
    return Light(
        key_direction=tuple(direction / np.linalg.norm(direction)),
        key_colour=tuple(key * tint),
        fill_direction=(-0.8 * np.tanh(2 * side), -0.5, 0.3),
        fill_colour=tuple(0.2 * (2 - tint)),
        sky=tuple(1.1 * ambient * (2 - tint)),
        ground=tuple(ambient * np.array([0.58, 0.55, 0.51])),
        word=word,
    )


def draw_background(kind: str, colours_GG3: np.ndarray) -> Background:
    """A background as the decoder's ``backdrop`` has it; a mottled one has the same clouds in every portrait."""
    mean = colours_GG3.mean((0, 1))
    code_C = np.concatenate([mean, (colours_GG3 - mean).transpose(2, 0, 1).ravel()])
    picture = backdrop(torch.from_numpy(code_C)[None], SIDE)[0].permute(1, 2, 0).numpy()
    if kind == "mottled":
        picture = picture + clouds()[..., None]
    picture = picture.clip(0, 1)
    return Background((255 * picture).round().astype(np.uint8), kind, colour_word(picture.mean((0, 1))))


@cache
def clouds() -> np.ndarray:
    """What a mottled background adds to its colours [SIDE, SIDE]."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(1)
    noise = np.sum([s * gaussian_filter(rng.normal(size=(SIDE, SIDE)), s, mode="wrap") for s in (3, 9, 24)], 0)
    return CLOUDS * (noise - noise.mean()) / noise.std()


def stand(portrait: Portrait) -> Subject:
    """The person as the renderer's subject, before a camera that sees the face where every face is."""
    subject = dress(Rig.load(), portrait.identity, portrait.appearance, portrait.background)
    return replace(subject, view_projection=aligned_view(subject))


def draw_portrait(renderer: Renderer, portrait: Portrait) -> np.ndarray:
    """The picture, uint8 [H, W, 3]."""
    weights, rotation, shift, gaze = (np.zeros((1, n), np.float32) for n in (len(ACTIONS), 3, 3, 2))
    return renderer.render(stand(portrait), Motion(weights, rotation, shift, gaze)).frames[0]
