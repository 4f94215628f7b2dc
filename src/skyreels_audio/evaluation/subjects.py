"""Whom the metrics are measured on: drawn people and animated photographs, as the renderer's subjects."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skyreels_audio.synthetic.captions import Attributes
from skyreels_audio.synthetic.subject import Subject

if TYPE_CHECKING:
    from skyreels_audio.synthetic.appearance import Appearance

# Seeds of people beyond any that training draws; even ones are for fitting the measures, odd ones for applying them.
FIRST_SEED = 1 << 40


def drawn(
    split: str, number: int, look: str | None = None, restyle: "Callable[[Appearance], Appearance] | None" = None
) -> tuple[Subject, Attributes]:
    """Drawn person `number` of a split, with a look of `appearance.LOOKS` instead of their own if one is given.

    `restyle` changes how they look further. Those of the test split stand as `generate` frames a portrait, the others
    anywhere.
    """
    from dataclasses import replace

    from skyreels_audio.synthetic.appearance import sample_appearance
    from skyreels_audio.synthetic.background import sample_background
    from skyreels_audio.synthetic.captions import background_attributes, person_attributes
    from skyreels_audio.synthetic.person import aligned_view, dress
    from skyreels_audio.synthetic.rig import Rig

    seed = FIRST_SEED + 2 * number + (split == "test")
    identity = Rig.load().identity(seed)
    appearance = sample_appearance(seed, identity)
    if look is not None:
        appearance = replace(appearance, look=look)
    if restyle is not None:
        appearance = restyle(appearance)
    background = sample_background(np.random.default_rng([seed, 3]))
    known = person_attributes(identity, appearance) | background_attributes(background)
    subject = dress(Rig.load(), identity, appearance, background)
    if split == "test":
        subject = replace(subject, view_projection=aligned_view(subject))
    return subject, known


def photographed(folder: Path, split: str, rng: np.random.Generator) -> Iterator[tuple[Subject, str]]:
    """Photographs of a split that can be made to speak, with their names, in random order, over and over.

    Raises ValueError if none can.
    """
    from skyreels_audio import faces, media
    from skyreels_audio.synthetic.photograph import animate_photograph, suitable
    from skyreels_audio.synthetic.photograph import split as split_of

    paths = [p for p in sorted(folder.iterdir()) if p.suffix in (".jpg", ".png") and split_of(p.name) == split]
    while True:
        used = 0
        for index in rng.permutation(len(paths)):
            image = media.read_image(paths[index])
            found = faces.detect_faces(image)
            if found and suitable(found[0]):
                used += 1
                yield animate_photograph(image, found[0]), paths[index].name
        if not used:
            raise ValueError(f"no photograph in {folder} can be made to speak")
