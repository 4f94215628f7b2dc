"""Pictures."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from skyreels_audio.media.files import InputError, existing_file, replacing, writing


def read_image(path: str | Path) -> np.ndarray:
    """Read the picture at ``path`` (an animation's first frame): upright by its EXIF tag, over white where transparent.

    Raises ``InputError`` if there is no such file or it is not a whole picture.
    """
    path = existing_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice its limit is an error, see below
            with Image.open(path) as image:
                return _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        known = "PNG, JPEG, WebP, AVIF, TIFF, GIF, BMP"
        raise InputError(f"{path} is not a picture, or not in a known format ({known}).") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path} has more than 178 megapixels; scale it down first.") from None
    except Exception as error:  # on damaged bytes Pillow's decoders raise almost anything
        raise InputError(f"{path} is a damaged or truncated picture ({error}).") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith(("I", "F")):  # one channel of 16 bits or floats, which Pillow would clip instead of scale
        grey_HW = np.asarray(image, dtype=np.float32)
        white = 65535.0 if image.mode.startswith("I") else max(1.0, float(grey_HW.max()))
        grey_HW = (255 / white * grey_HW).round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey_HW[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write uint8 HWC ``image``; the name's suffix picks the format. The file appears whole or not at all."""
    path = Path(path)
    with writing(path), replacing(path) as partial:
        Image.fromarray(image).save(partial, format=Image.registered_extensions()[path.suffix.lower()])


def contact_sheet(frames: Sequence[np.ndarray], columns: int, gap: int = 4) -> np.ndarray:
    """Lay ``frames`` (of one size) out in rows of ``columns``, ``gap`` white pixels apart."""
    height, width, _ = frames[0].shape
    rows = -(-len(frames) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, frame in enumerate(frames):
        row, column = divmod(index, columns)
        top, left = row * (height + gap), column * (width + gap)
        sheet[top : top + height, left : left + width] = frame
    return sheet
