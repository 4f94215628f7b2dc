"""Pictures: what goes in comes out upright and in its colours, and what is broken is told in one sentence."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from written import BLUE, GREEN, RED, WHITE, frames_like

from skyreels_audio.media import InputError, contact_sheet, read_image, write_image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_stands_upright(tmp_path: Path, orientation: int) -> None:
    upright = Image.new("RGB", (40, 24), WHITE)
    upright.paste(RED, (0, 0, 20, 12))
    upright.paste(BLUE, (20, 0, 40, 12))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that stores an upright picture under the tag
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.array(upright))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_what_is_transparent_becomes_white(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (8, 4), (255, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 4, 4))
    if mode == "P":
        palette = Image.new("P", (8, 4), 1)
        palette.putpalette([0, 0, 0, *RED])
        palette.paste(0, (0, 0, 4, 4))
        palette.save(tmp_path / "a.png", transparency=0)
    elif mode == "RGB":  # one colour declared transparent
        picture.convert("RGB").save(tmp_path / "a.png", transparency=(0, 0, 0))
    else:
        picture.convert(mode).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert (image[:, :4] == 255).all()
    assert (image[:, 4:, 1] < 100).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (4, 1))
    for name in ("a.png", "a.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        assert np.array_equal(read_image(tmp_path / name)[0, :, 1], np.arange(256))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "F"])
def test_any_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGB", (8, 8), WHITE)
    if mode == "P":
        picture = picture.quantize(4)
    elif mode == "F":
        picture = Image.fromarray(np.ones((8, 8), np.float32))
    else:
        picture = picture.convert(mode)
    name = "a.tif" if mode in ("F", "YCbCr") else "a.jpg" if mode == "CMYK" else "a.png"
    packed = {"compression": "tiff_lzw"} if mode == "YCbCr" else {}  # Pillow 12 cannot read back its own raw YCbCr
    picture.save(tmp_path / name, **packed)
    image = read_image(tmp_path / name)
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8 and image.min() > 250


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 8), GREEN), Image.new("RGB", (8, 8), BLUE)
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert read_image(tmp_path / "a.gif")[4, 4].tolist() == [0, 255, 0]


def test_bad_pictures_are_told_in_one_sentence(tmp_path: Path) -> None:
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(whole, "PNG")
    bomb = b"P6 60000 60000 255 "
    cases = {"text.png": b"not a picture", "empty.png": b"", "cut.png": whole.getvalue()[:4000], "bomb.ppm": bomb}
    reasons = {"text.png": "not a picture", "empty.png": "empty", "cut.png": "truncated", "bomb.ppm": "megapixels"}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=reasons[name]) as error:
            read_image(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="does not exist"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="folder"):
        read_image(tmp_path)


def test_a_contact_sheet_shows_every_frame() -> None:
    frames = frames_like(5, 6, 8)
    sheet = contact_sheet(frames, columns=3, gap=2)
    assert sheet.shape == (2 * 6 + 2, 3 * 8 + 2 * 2, 3)
    assert np.array_equal(sheet[8:14, 10:18], frames[4])
    assert (sheet[8:14, 20:] == 255).all()


def test_a_written_picture_reads_back(tmp_path: Path) -> None:
    image = frames_like(1)[0]
    write_image(tmp_path / "a.png", image)
    assert np.array_equal(read_image(tmp_path / "a.png"), image)
    with pytest.raises(InputError, match=r"none/a\.png cannot be written"):
        write_image(tmp_path / "none" / "a.png", image)
