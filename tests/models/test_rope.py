"""The clock and the rotary embedding."""

import pytest
import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from hypothesis import given
from hypothesis import strategies as st

from skyreels_audio.models.rope import TokenClock, latent_positions, rotary_table, rotate, token_positions

HEADS_BLND = torch.randn(1, 3, 2, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
KEYS_BLND = torch.randn(1, 3, 2, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def scores(query_position: float, key_position: float) -> torch.Tensor:
    query, key = (
        rotate(heads, rotary_table(torch.full((1, 3), position, dtype=torch.float64), 16, 10000.0))
        for heads, position in ((HEADS_BLND, query_position), (KEYS_BLND, key_position))
    )
    return (query * key).sum(-1)


@pytest.mark.parametrize("fps", [24, 25, 29.97])
def test_a_latent_sits_at_the_mean_time_of_its_frames(fps):
    frame_ticks = 50 / fps * torch.arange(13, dtype=torch.float64)
    expected = torch.cat([frame_ticks[:1], frame_ticks[1:].view(3, 4).mean(1)])
    assert torch.allclose(latent_positions(4, fps), expected)


def test_an_audio_token_sits_in_the_middle_of_its_20_milliseconds():
    assert token_positions(3).tolist() == [0.5, 1.5, 2.5]


@given(st.floats(-500, 500), st.floats(-500, 500), st.floats(-2e5, 2e5))
def test_scores_depend_only_on_the_distance_in_time(query_position, key_position, shift):
    here, there = scores(query_position, key_position), scores(query_position + shift, key_position + shift)
    assert torch.allclose(here, there, atol=1e-4)


def test_rotation_keeps_lengths():
    rotated = rotate(HEADS_BLND, rotary_table(torch.tensor([[3.0, 0.5, -7.0]]), 16, 10000.0))
    assert torch.allclose(rotated.norm(dim=-1), HEADS_BLND.norm(dim=-1))


def test_angles_are_diffusers_angles_at_whole_positions():
    cos, sin = get_1d_rotary_pos_embed(16, 5, 10000.0, use_real=True, freqs_dtype=torch.float64)
    ours = rotary_table(torch.arange(5)[None], 16, 10000.0)
    assert torch.equal(ours[0][0, :, 0], cos[:, ::2]) and torch.equal(ours[1][0, :, 0], sin[:, ::2])


def test_every_token_of_a_latent_frame_has_its_position():
    positions_BL = TokenClock()(torch.tensor([[0.0, 5.0], [1.0, 6.0]]), 3)
    assert positions_BL.tolist() == [[0, 0, 0, 5, 5, 5], [1, 1, 1, 6, 6, 6]]
