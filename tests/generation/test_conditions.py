from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from skyreels_audio.generation.conditions import Conditions, Part, stack
from skyreels_audio.generation.encoders import encode_text
from skyreels_audio.generation.latents import build_reference, normalise
from skyreels_audio.generation.masks import to_latent
from skyreels_audio.models.rope import latent_positions, token_positions


def clip(latents: int = 9, batch: int = 1, **changes: Any) -> Any:
    tokens = 8 * latents
    values: dict[str, Any] = {
        "text_BSD": torch.ones(batch, 2, 3),
        "null_text_BSD": torch.full((batch, 2, 3), 7.0),
        "audio_BAD": (torch.arange(tokens) + 1.0).view(1, -1, 1).expand(batch, -1, -1),
        "audio_positions_A": token_positions(tokens),
        "reference_BCTHW": (torch.arange(latents) + 1.0).view(1, 1, -1, 1, 1).expand(batch, 2, -1, 2, 2),
        "known_B4THW": torch.rand(batch, 4, latents, 2, 2) + 1,
        "video_positions_T": latent_positions(latents),
        "image_BND": torch.ones(batch, 2, 2),
    }
    return Conditions(**values | changes)


def test_dropping_nulls_and_says_so():
    given = clip()
    dropped = given.drop("audio").drop("text", "reference")
    assert dropped.parts == (Part(None, frozenset({"audio", "text", "reference"})),)
    assert torch.equal(dropped.text_BSD, given.null_text_BSD)
    for nulled in (dropped.audio_BAD, dropped.reference_BCTHW, dropped.known_B4THW, dropped.image_BND):
        assert nulled is not None and not nulled.any()
    assert given.parts == (Part(),) and given.drop("text").audio_BAD is given.audio_BAD
    assert clip(audio_BAD=None, image_BND=None).drop("audio", "reference").audio_BAD is None


def test_dropping_rows_of_a_batch_leaves_the_others():
    given, rows = clip(batch=3), torch.tensor([True, False, True])
    dropped = given.drop("text", "audio", "reference", rows_B=rows)
    whole = given.drop("text", "audio", "reference")
    for name in ("text_BSD", "audio_BAD", "reference_BCTHW", "known_B4THW", "image_BND"):
        for row, is_dropped in enumerate(rows):
            assert torch.equal(getattr(dropped, name)[row], getattr(whole if is_dropped else given, name)[row]), name


def test_a_window_begins_with_the_reference_and_keeps_its_own_time():
    given = clip()
    window = given.window(3, 7)
    assert window.parts == (Part((3, 7)),)
    assert window.reference_BCTHW[0, 0, :, 0, 0].tolist() == [1, 5, 6, 7]
    assert torch.equal(window.known_B4THW, given.known_B4THW[:, :, [0, 4, 5, 6]])
    assert torch.equal(window.video_positions_T, given.video_positions_T[3:7])


def test_a_window_hears_what_its_frames_last_and_no_more():
    window = clip().window(3, 7)
    # Latents 3 … 6 are frames 9 … 24, instants 8.5/25 s … 24.5/25 s around them: tokens 17 … 48.
    assert window.audio_positions_A[[0, -1]].tolist() == [17.5, 48.5]
    assert window.audio_BAD.flatten().tolist() == list(range(18, 50))
    wider = clip(audio_reach=10.0).window(3, 7)
    assert wider.audio_positions_A[[0, -1]].tolist() == [7.5, 58.5]
    assert clip().window(0, 9).audio_positions_A[0] == 0.5


def test_all_inner_windows_hear_equally_many_tokens():
    counts = {clip(40).window(start, start + 7).audio_BAD.shape[1] for start in range(1, 32)}
    assert counts == {56}


def test_a_short_reference_serves_every_window():
    reference, known = torch.randn(1, 2, 4, 1, 1), torch.rand(1, 4, 4, 1, 1)
    given = clip(reference_BCTHW=reference, known_B4THW=known)
    for start in (0, 2, 5):
        assert torch.equal(given.window(start, start + 4).reference_BCTHW, reference)
        assert torch.equal(given.window(start, start + 4).known_B4THW, known)


def test_voice_follows_the_window():
    assert clip(voice_activity_T=torch.arange(9.0)).window(3, 7).voice_activity_T.tolist() == [3, 4, 5, 6]


def test_without_its_video_a_window_sees_the_first_frame_alone():
    still, known = torch.randn(1, 2, 4, 1, 1), torch.rand(1, 4, 4, 1, 1)
    given = clip(still_BCTHW=still, still_known_B4THW=known)
    window = given.window(3, 7).drop("video")
    assert torch.equal(window.reference_BCTHW, still) and torch.equal(window.known_B4THW, known)
    assert not given.window(3, 7).drop("video", "reference").reference_BCTHW.any()
    assert torch.equal(clip().drop("video").reference_BCTHW, clip().reference_BCTHW)  # a picture is no video


def test_a_batch_keeps_what_each_of_it_is():
    given = clip()
    views = [given.window(2, 6), given.window(3, 7).drop("audio")]
    batch = stack(views)
    assert batch.parts == (Part((2, 6)), Part((3, 7), frozenset({"audio"})))
    for row, view in enumerate(views):
        for name in ("text_BSD", "reference_BCTHW", "known_B4THW", "image_BND"):
            assert torch.equal(getattr(batch, name)[row], getattr(view, name)[0])
        assert torch.equal(batch.video_positions_T[row], view.video_positions_T)


def tiny_vae() -> Any:
    torch.manual_seed(0)
    return AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.5] * 4, latents_std=[3.0] * 4
    ).eval()


def test_image_animation_is_wans_convention():
    vae, image = tiny_vae(), np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3), dtype=np.uint8)
    reference, known = build_reference(image, None, 3, vae)
    video = torch.zeros(1, 3, 9, 16, 24)
    video[0, :, 0] = torch.tensor(image[0]).permute(2, 0, 1) / 127.5 - 1
    with torch.no_grad():
        expected = (vae.encode(video).latent_dist.mode() - 0.5) / 3
    torch.testing.assert_close(reference, expected)
    assert known.shape == (1, 4, 3, 2, 3) and known[:, :, 0].all() and not known[:, :, 1:].any()


def test_editing_never_sees_the_edited_pixels_and_always_the_first_frame():
    vae, rng = tiny_vae(), np.random.default_rng(0)
    video = rng.integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    known = rng.random((9, 16, 16)) < 0.5
    other = video.copy()
    other[1:][~known[1:]] = 0
    reference, mask = build_reference(video, known, 3, vae)
    assert torch.equal(build_reference(other, known, 3, vae)[0], reference)
    known[0] = True
    assert torch.equal(mask[0], to_latent(torch.tensor(known).float(), 8))
    other[0] = 255 - other[0]
    assert not torch.equal(build_reference(other, known, 3, vae)[0], reference)


def test_text_alone_has_no_reference():
    reference, known = build_reference(None, None, 5, tiny_vae(), (16, 24))
    assert reference.shape == (1, 4, 5, 2, 3) and known.shape == (1, 4, 5, 2, 3)
    assert not reference.any() and not known.any()


def test_normalised_latents_are_of_unit_scale():
    latents = 0.5 + 3 * torch.randn(2, 4, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    unit = normalise(latents, tiny_vae())
    assert unit.mean().abs() < 0.01 and (unit.std() - 1).abs() < 0.01


def test_padding_of_text_is_zero_and_does_not_change_it(pipeline):
    parts = pipeline.tokenizer, pipeline.text_encoder
    short, long = (encode_text(["nod", "a longer text"], *parts, tokens) for tokens in (16, 32))
    torch.testing.assert_close(short, long[:, :16])
    assert short[0, :4].any(dim=-1).all() and not short[0, 4:].any()
