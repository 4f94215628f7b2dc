"""What several verbs share."""

from collections.abc import Iterator
from contextlib import contextmanager

from skyreels_audio.rendering import LONGEST_SIDE

SIDE_STEP = 16  # width and height are multiples of this many pixels, the side of a latent


def parse_size(text: str, step: int = SIDE_STEP) -> tuple[int, int]:
    """Width and height, multiples of ``step``, from "480x832", or from "256" for a square. Raises ``InputError``."""
    from skyreels_audio.media import InputError

    sides = text.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdecimal() for side in sides):
        raise InputError(f"--size is WIDTHxHEIGHT or the side of a square, such as 256x384 or 256, not {text!r}.")
    width, height = int(sides[0]), int(sides[-1])
    if max(width, height) > LONGEST_SIDE:
        raise InputError(f"--size {text[:40]} is too large: a side has at most {LONGEST_SIDE} pixels.")
    nearest = [max(step, round(side / step) * step) for side in (width, height)]
    if [width, height] != nearest:
        near = f"{nearest[0]}x{nearest[1]}"
        raise InputError(f"--size must be in multiples of {step} pixels; the nearest to {text} is {near}.")
    return width, height


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """What is missing in the block comes with the optional dependencies ``name``."""
    from skyreels_audio.media import InputError

    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is missing; install it with: pip install '.[{name}]'") from error
