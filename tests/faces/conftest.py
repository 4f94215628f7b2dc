"""A photograph of a face (CC0), and ways to move it whose truth is known."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skyreels_audio.faces import Face, detect_faces
from skyreels_audio.faces.warp import warp


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    return np.asarray(Image.open(Path(__file__).parent / "portrait.jpg"))


@pytest.fixture(scope="session")
def face(portrait) -> Face:
    return detect_faces(portrait)[0]


@pytest.fixture(scope="session")
def moved(portrait):
    """``moved(size, scale, degrees, shift)``: the portrait turned and scaled about its middle, then shifted, and the
    map [2, 3] from the portrait to the new picture."""

    def move(size=(320, 240), scale=1.0, degrees=0.0, shift=(0.0, 0.0)) -> tuple[np.ndarray, np.ndarray]:
        turn = scale * np.exp(1j * np.radians(degrees))
        linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
        middle = np.array([portrait.shape[1], portrait.shape[0]]) / 2
        offset = np.array([size[1], size[0]]) / 2 + shift - linear @ middle
        inverse = np.linalg.inv(linear)
        picture = warp(portrait, np.column_stack([inverse, -inverse @ offset]), size)
        return picture, np.column_stack([linear, offset])

    return move
