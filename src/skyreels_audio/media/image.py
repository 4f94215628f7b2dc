"""Pictures."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from skyreels_audio.media.files import InputError, existing_file, replacing, writing

MOST_PIXELS = 100_000_000  # a 12 000 × 8 000 scan; memory holds it twice while it is read
# Of what Pillow reads: nothing that runs another program (EPS) or is rarely tried.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "JPEG2000", "PPM", "ICO", "TGA")
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # bytes 8 to 12 of the file


def read_image(path: str | Path, longest: int | None = None) -> np.ndarray:
    """Read the picture at ``path`` (an animation's first frame) as sRGB, uint8 HWC.

    Upright by its EXIF tag, over white where transparent, colours converted by its ICC profile. With ``longest``, a
    picture with a longer side is scaled down to it.
    Raises ``InputError`` if there is no such file, it is not a whole picture or has more than ``MOST_PIXELS``.
    """
    path = existing_file(path)
    _register_heif(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size, where our own limit is lower, and of damage
            with Image.open(path, formats=_formats()) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise Image.DecompressionBombError
                if longest is not None:
                    image.draft(None, (longest, longest))  # JPEG alone can: it decodes at 1/2, 1/4 or 1/8
                upright = ImageOps.exif_transpose(image)
                if longest is not None and max(upright.size) > longest and not upright.mode.startswith(("I", "F")):
                    upright = _scaled_down(upright, longest)
                return _to_rgb(upright)
    except UnidentifiedImageError:
        known = "PNG, JPEG, WebP, AVIF, TIFF, GIF, BMP"
        raise InputError(f"{path} is not a picture, or not in a known format ({known}).") from None
    except Image.DecompressionBombError:
        limit = MOST_PIXELS // 1_000_000
        raise InputError(f"{path} has more than {limit} megapixels; scale it down first.") from None
    except MemoryError:
        raise InputError(f"{path} does not fit into memory; scale it down first.") from None
    except Exception as error:  # on damaged bytes Pillow's decoders raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is a damaged or truncated picture ({reason}).") from error


def image_changes(path: str | Path, longest: int | None = None) -> list[str]:
    """What :func:`read_image` does to the picture at ``path``, which it can read, as phrases."""
    with Image.open(path, formats=_formats()) as image:
        frames, side = getattr(image, "n_frames", 1), max(image.size)
        said = [
            (image.getexif().get(0x0112, 1) != 1, "turned upright by its EXIF tag"),
            (frames > 1, f"the first of {frames} frames is used"),
            (bool(image.info.get("icc_profile")), "colours converted by its ICC profile"),
            (image.has_transparency_data, "laid over white where transparent"),
            (image.mode.startswith(("I", "F")), "16 bits become 8"),
            (longest is not None and side > longest, f"scaled down: its longer side from {side} to {longest} pixels"),
        ]
    return [phrase for holds, phrase in said if holds]


def _formats() -> list[str]:
    return [*FORMATS, *(["HEIF"] if "HEIF" in Image.OPEN else [])]


def _register_heif(path: Path) -> None:
    """Phones' HEIC pictures need a decoder of their own (extra ``[heic]``)."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] != b"ftyp" or head[8:] not in HEIF_BRANDS:
        return
    try:
        from pillow_heif import register_heif_opener  # pyright: ignore[reportMissingImports]
    except ImportError:
        extra = "pip install '.[heic]'"
        raise InputError(f"{path} is a HEIC picture; export it as JPEG, or install what reads it: {extra}") from None
    register_heif_opener()


def _scaled_down(image: Image.Image, longest: int) -> Image.Image:
    scale = longest / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if image.mode in ("P", "1"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    small.info = image.info
    return small


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith(("I", "F")):  # one channel of 16 bits or floats, which Pillow would clip instead of scale
        grey_HW = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0, neginf=0)
        white = 65535.0 if image.mode.startswith("I") else max(1.0, float(grey_HW.max()))
        grey_HW = (255 / white * grey_HW).round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey_HW[..., None], 3, axis=2)
    image = _to_srgb(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _to_srgb(image: Image.Image) -> Image.Image:
    """Colours of a wide gamut, of print and the like as the screen shows them; a damaged profile counts as none."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L", "LAB"):
        return image
    try:
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return converted or image


def write_image(path: str | Path, image: np.ndarray, about: str = "") -> None:
    """Write uint8 HWC ``image``; the name's suffix picks the format. The file appears whole or not at all.

    ``about``: a note in the metadata of a PNG, which :func:`image_note` reads.
    """
    path = Path(path)
    options = {}
    if about:
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("Comment", about)
    with writing(path), replacing(path) as partial:
        Image.fromarray(image).save(partial, format=Image.registered_extensions()[path.suffix.lower()], **options)


def image_note(path: str | Path) -> str:
    """What :func:`write_image` noted in the PNG at ``path``; empty for any other file."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return str(image.info.get("Comment", ""))
    except (OSError, ValueError, SyntaxError):
        return ""


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
