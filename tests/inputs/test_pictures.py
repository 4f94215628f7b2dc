"""Pictures as phones, scanners and design programs write them."""

import io
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from making import damaged, pictures, png
from PIL import Image, ImageCms

from skyreels_audio.media import InputError, image_changes, read_image
from skyreels_audio.media.image import MOST_PIXELS


def test_an_animated_webp_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(frame) for frame in pictures(3, 40, 60)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=100, lossless=True)
    assert np.array_equal(read_image(tmp_path / "a.webp"), np.asarray(frames[0]))
    assert image_changes(tmp_path / "a.webp") == ["the first of 3 frames is used"]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_colours_are_those_of_the_profile(tmp_path: Path, mode: str) -> None:
    """A profile whose red and blue are swapped, as no careless reader would guess; grey stays grey."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = bytearray(srgb)
    tags = {bytes(swapped[at : at + 4]): at for at in range(132, 132 + 12 * int.from_bytes(srgb[128:132], "big"), 12)}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    swapped[red + 4 : red + 8], swapped[blue + 4 : blue + 8] = srgb[blue + 4 : blue + 8], srgb[red + 4 : red + 8]
    picture = Image.new("RGB", (8, 8), (220, 40, 60)).convert(mode)
    picture.save(tmp_path / "a.png", icc_profile=bytes(swapped))
    red, _, blue = read_image(tmp_path / "a.png")[4, 4].astype(int)
    if mode == "L":
        assert abs(red - blue) <= 2
    else:
        assert abs(red - 60) < 6 and abs(blue - 220) < 6
    assert any("ICC" in change for change in image_changes(tmp_path / "a.png"))


def display_p3() -> bytes:
    """The profile of phones' pictures: sRGB's with the primaries of DCI-P3, adapted to D50."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {b"rXYZ": (0.51512, 0.24120, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189)}
    primaries |= {b"bXYZ": (0.15710, 0.06657, 0.78407)}
    for entry in range(132, 132 + 12 * int.from_bytes(profile[128:132], "big"), 12):
        if (values := primaries.get(bytes(profile[entry : entry + 4]))) is not None:
            at = int.from_bytes(profile[entry + 4 : entry + 8], "big") + 8
            profile[at : at + 12] = b"".join(round(65536 * v).to_bytes(4, "big", signed=True) for v in values)
    return bytes(profile)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WebP", "AVIF", "TIFF", "HEIF"])
def test_a_wide_gamut_comes_out_in_the_colours_of_the_screen(tmp_path: Path, form: str) -> None:
    """Skin as a phone stores it in Display P3, where the same numbers are less red than in sRGB."""
    skin, in_p3 = (205, 120, 92), (192, 124, 99)
    if form == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    path = tmp_path / f"a.{form.lower()}"
    lossless = {"WebP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": 0}}.get(form, {"quality": 98})
    options = {} if form in ("PNG", "TIFF") else lossless
    Image.new("RGB", (64, 64), in_p3).save(path, form, icc_profile=display_p3(), **options)
    assert np.abs(read_image(path)[32, 32].astype(int) - skin).max() <= 4
    assert "colours converted by its ICC profile" in image_changes(path)


def test_formats_that_run_programs_and_numbers_that_are_none(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    with pytest.raises(InputError, match=r"a\.eps is not a picture, or not in a known format"):
        read_image(tmp_path / "a.eps")
    grey_HW = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    grey_HW[0, 1:4] = np.nan, np.inf, -np.inf
    Image.fromarray(grey_HW).save(tmp_path / "a.tiff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_image(tmp_path / "a.tiff")
    assert read[0, :4].max() == 0 and read[7, 7].tolist() == [255] * 3


@pytest.mark.parametrize(
    ("mode", "form"), [("CMYK", "JPEG"), ("P", "GIF"), ("LAB", "TIFF"), ("1", "PNG"), ("RGB", "MPO")]
)
def test_pictures_of_print_and_of_old_look_as_they_do(tmp_path: Path, mode: str, form: str) -> None:
    picture = Image.fromarray(pictures(1, 40, 60)[0])
    picture.convert(mode).save(tmp_path / "a", form, **({"save_all": True} if form in ("GIF", "MPO") else {}))
    read = read_image(tmp_path / "a").astype(int)
    near = 130 if mode == "1" else 40 if mode == "P" else 8
    assert np.abs(read - np.asarray(picture)).mean() < near and read.shape == (40, 60, 3)


def test_a_damaged_profile_counts_as_none(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 8), (220, 40, 60))
    picture.save(tmp_path / "a.png", icc_profile=b"no profile at all")
    assert read_image(tmp_path / "a.png")[4, 4].tolist() == [220, 40, 60]


def test_large_pictures_are_scaled_down_or_refused_at_once(tmp_path: Path) -> None:
    Image.new("RGB", (6000, 3000), (90, 120, 60)).save(tmp_path / "a.jpg")
    Image.new("L", (3, 5000), 90).save(tmp_path / "thin.png")
    started = time.process_time()
    assert read_image(tmp_path / "a.jpg", 1024).shape == (512, 1024, 3)
    assert read_image(tmp_path / "thin.png", 1024).shape == (1024, 1, 3)
    assert image_changes(tmp_path / "a.jpg", 1024) == ["scaled down: its longer side from 6000 to 1024 pixels"]
    assert read_image(tmp_path / "a.jpg").shape == (3000, 6000, 3)
    side = int(MOST_PIXELS**0.5) + 1
    head = bytearray(png(np.zeros((4, 4, 3), np.uint8)))
    head[16:24] = side.to_bytes(4, "big") * 2
    crc = __import__("zlib").crc32(bytes(head[12:29])).to_bytes(4, "big")
    head[29:33] = crc
    (tmp_path / "huge.png").write_bytes(head)
    with pytest.raises(InputError, match=r"huge\.png has more than 100 megapixels"):
        read_image(tmp_path / "huge.png")
    assert time.process_time() - started < 3


def test_a_phones_heic_is_read_or_told(tmp_path: Path) -> None:
    try:
        from pillow_heif import from_pillow  # pyright: ignore[reportMissingImports]
    except ImportError:
        (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
        with pytest.raises(InputError, match=r"a\.heic is a HEIC picture; export it as JPEG"):
            read_image(tmp_path / "a.heic")
        return
    picture = Image.fromarray(pictures(1, 48, 64)[0])
    from_pillow(picture).save(tmp_path / "a.heic", quality=95)
    assert np.abs(read_image(tmp_path / "a.heic").astype(int) - np.asarray(picture)).mean() < 4


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WebP", "AVIF", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("kind", ["cut", "flip", "drop", "zero", "repeat", "header"])
def test_damage_is_told_in_one_sentence_or_shown(tmp_path: Path, form: str, kind: str) -> None:
    file = io.BytesIO()
    Image.fromarray(pictures(1, 60, 80)[0]).save(file, form)
    for seed in range(4):
        path = tmp_path / f"{seed}.img"
        path.write_bytes(damaged(file.getvalue(), seed, kind))
        try:
            image = read_image(path, 512)
        except InputError as error:
            assert f"{seed}.img" in str(error) and "\n" not in str(error)
        else:
            assert image.ndim == 3 and image.dtype == np.uint8
