import numpy as np
import pytest

from skyreels_audio.evaluation.quality import box_mask, movement, psnr, silence_ratio, ssim, static_mask


@pytest.fixture
def picture() -> np.ndarray:
    y, x = np.mgrid[:64, :64]
    return np.stack([2 * x + y, 3 * y, 255 - x - y], -1).astype(np.uint8)


def noisy(picture: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=picture.shape) * sigma
    return (picture + noise).clip(0, 255).astype(np.uint8)


def face(size: float = 1.0) -> np.ndarray:
    """68 points of an upright face of about 100·size pixels around (128, 128)."""
    points = np.random.default_rng(1).uniform(-0.2, 0.2, (68, 2))
    angle = np.linspace(np.pi, 0, 17)
    points[:17] = np.stack([0.4 * np.cos(angle), 0.5 * np.sin(angle)], -1)
    points[17:27] = np.stack([np.linspace(-0.3, 0.3, 10), np.full(10, -0.25)], -1)
    points[27], points[30], points[33] = (0, -0.15), (0, 0.1), (0, 0.15)
    return (128 + 100 * size * points).astype(np.float32)


def test_psnr_of_a_known_error(picture):
    assert psnr(picture, picture) == float("inf")
    assert psnr(np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)) == pytest.approx(0)
    assert psnr(np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 51, np.uint8)) == pytest.approx(20 * np.log10(5))


def test_psnr_looks_only_where_it_is_told(picture):
    other = picture.copy()
    other[:32] = 0
    where = np.arange(64)[:, None] >= 32
    assert psnr(picture, other, np.broadcast_to(where, (64, 64))) == float("inf")


def test_ssim_falls_with_noise(picture):
    values = [ssim(picture, noisy(picture, sigma)) for sigma in (0, 5, 20, 60)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True)


def test_what_should_not_move_is_away_from_the_face():
    small, large = (static_mask(face(size), (256, 256)) for size in (0.8, 1.2))
    assert small[0, 0] and small[255, 255]
    assert not small[128, 128]
    assert not (large & ~small).any()  # a larger face leaves less that is still


def test_box_mask_covers_the_box():
    mask = box_mask(np.array([2.0, 1.0, 5.0, 3.0]), (8, 8))
    assert mask.sum() == 6 and mask[1:3, 2:5].all()


def test_silence_ratio_compares_movement():
    silent = np.zeros(150, bool)
    silent[50:100] = True
    curve = np.random.default_rng(0).random(150)
    assert silence_ratio(curve, silent) == pytest.approx(1, abs=0.3)
    assert silence_ratio(np.where(silent, 0, curve), silent) == 0
    assert np.isnan(silence_ratio(curve, np.zeros(150, bool)))
    assert movement(np.array([0.0, 1.0, 0.0])) == 1
