"""The transformer against diffusers' own class, and the properties of its audio branch."""

from typing import Any

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from skyreels_audio.models.audio_attention import AudioAttention, SkyReelsAudioBlock
from skyreels_audio.models.rope import latent_positions, token_positions
from skyreels_audio.models.transformer import SMALLEST_SIGMA, Embedded, SkyReelsAudioTransformer3DModel

LATENT = 4
SIZE: dict[str, Any] = dict(
    num_attention_heads=2,
    attention_head_dim=12,
    in_channels=2 * LATENT + 4,
    out_channels=LATENT,
    text_dim=8,
    freq_dim=16,
    ffn_dim=32,
    num_layers=2,
    rope_max_seq_len=16,
)
IMAGE: dict[str, Any] = dict(image_dim=6, added_kv_proj_dim=24)
FRAMES, TOKENS = 3, 40


def transformer(**config) -> SkyReelsAudioTransformer3DModel:
    """A tiny model whose audio branch, after `wake`, matters."""
    torch.manual_seed(0)
    return SkyReelsAudioTransformer3DModel(**{**SIZE, "audio_dim": 10, **config})


def wake(model: SkyReelsAudioTransformer3DModel) -> SkyReelsAudioTransformer3DModel:
    """Every parameter random, as after training."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def audio_attention(model: SkyReelsAudioTransformer3DModel, block: int = 0) -> AudioAttention:
    module = model.blocks[block]
    assert isinstance(module, SkyReelsAudioBlock)
    return module.audio_attn


def inputs(batch: int = 2, text: int = 7, image: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    given = dict(
        hidden_states=normal(batch, SIZE["in_channels"], FRAMES, 4, 6),
        timestep=1000 * torch.rand(batch, generator=generator),
        encoder_hidden_states=normal(batch, 512 if image else text, SIZE["text_dim"]),
    )
    return {**given, "encoder_hidden_states_image": normal(batch, 5, 6)} if image else given


def voice(batch: int = 2, seed: int = 2) -> Tensor:
    return torch.randn(batch, TOKENS, 10, generator=torch.Generator().manual_seed(seed))


def velocity(model: SkyReelsAudioTransformer3DModel, **given) -> Tensor:
    with torch.no_grad():
        return model(**given, return_dict=False)[0]


@pytest.mark.parametrize("image", [False, True], ids=["text-to-video", "image-to-video"])
@pytest.mark.parametrize("per_token", [False, True], ids=["one timestep", "a timestep per token"])
@pytest.mark.parametrize("audio", [False, True], ids=["silent", "fresh audio branch"])
def test_backbone_is_bit_identical(image, per_token, audio):
    config = {**SIZE, **(IMAGE if image else {})}
    wan = WanTransformer3DModel(**config)
    for parameter in wan.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = transformer(**config)
    keys = ours.load_state_dict(wan.state_dict(), strict=False)
    assert not keys.unexpected_keys and all("audio_" in key for key in keys.missing_keys)

    given = inputs(image=image)
    if per_token:
        given["timestep"] = given["timestep"][:, None] * torch.linspace(0, 1, FRAMES * 6)
    heard = {"audio_hidden_states": voice()} if audio else {}
    with torch.no_grad():
        expected = wan(**given).sample
    assert torch.equal(velocity(ours, **given, **heard), expected)


def test_state_dict_is_wans_without_audio():
    assert transformer(audio_dim=None).state_dict().keys() == WanTransformer3DModel(**SIZE).state_dict().keys()


def test_audio_given_to_a_model_without_ears_is_an_error():
    with pytest.raises(ValueError, match="audio_dim"):
        transformer(audio_dim=None)(**inputs(), audio_hidden_states=voice())


@pytest.mark.parametrize("config", [{}, {"audio_width": 16, "audio_window": 9.5, "reference_residual": True}])
def test_save_and_load(tmp_path, config):
    model = wake(transformer(**config))
    model.save_pretrained(tmp_path)
    loaded = SkyReelsAudioTransformer3DModel.from_pretrained(tmp_path)
    assert dict(loaded.config).items() >= {**SIZE, **config, "audio_dim": 10}.items()
    given = {**inputs(), "audio_hidden_states": voice()}
    assert torch.equal(velocity(loaded, **given), velocity(model, **given))

    half = SkyReelsAudioTransformer3DModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert half.get_parameter("blocks.0.audio_norm.weight").dtype == torch.float32
    assert audio_attention(half).to_q.weight.dtype == torch.bfloat16


def test_an_attention_backend_is_of_one_model_alone():
    """diffusers makes it every model's that names none: what a process generates would depend on what it trained."""
    before = _AttentionBackendRegistry.get_active_backend()[0]
    model, other = wake(transformer(audio_window=9.5)), wake(transformer(audio_window=9.5))
    model.set_attention_backend("_native_math")
    assert audio_attention(model).processor._attention_backend == AttentionBackendName._NATIVE_MATH
    assert audio_attention(other).processor._attention_backend is None
    assert _AttentionBackendRegistry.get_active_backend()[0] == before != AttentionBackendName._NATIVE_MATH


def test_gradient_checkpointing_gives_the_same_gradients():
    model = wake(transformer(audio_window=9.5))
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        model(**inputs(), audio_hidden_states=voice()).sample.square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


def test_lora_adapters_reach_the_audio_branch_and_scale():
    peft = pytest.importorskip("peft")
    model = wake(transformer())
    given = {**inputs(), "audio_hidden_states": voice()}
    plain = velocity(model, **given)
    model.add_adapter(
        peft.LoraConfig(r=2, target_modules=r".*audio_attn\.(to_q|to_v|to_out\.0)", init_lora_weights=False)
    )
    assert not torch.allclose(velocity(model, **given), plain)
    assert torch.allclose(velocity(model, **given, attention_kwargs={"scale": 0.0}), plain)


@pytest.mark.parametrize("residual", [False, True])
def test_forward_is_embed_blocks_head(residual):
    model = wake(transformer(reference_residual=residual))
    given = {**inputs(), "audio_hidden_states": voice()}
    with torch.no_grad():
        embedded = model.embed(**given)
        assert torch.equal(model.head(model.run_blocks(embedded), embedded), velocity(model, **given))


@pytest.mark.parametrize("residual", [False, True])
def test_velocity_and_clean_latents_are_two_views_of_one_prediction(residual):
    model, given = wake(transformer(reference_residual=residual)), inputs()
    noisy, sigma = given["hidden_states"][:, :LATENT], given["timestep"].view(-1, 1, 1, 1, 1) / 1000
    with torch.no_grad():
        clean = model.predict_clean(**given)
    assert torch.allclose(noisy - sigma * velocity(model, **given), clean, atol=1e-5)


class TestTime:
    """Audio is heard by its time, not by its index."""

    def test_shifting_both_clocks_changes_nothing(self):
        model = wake(transformer(audio_window=9.5))
        given = {**inputs(), "audio_hidden_states": voice()}
        video, audio = latent_positions(FRAMES), token_positions(TOKENS)
        here = velocity(model, **given)
        there = velocity(model, **given, video_positions=video + 1e5, audio_positions=audio + 1e5)
        late = velocity(model, **given, video_positions=video, audio_positions=audio + 3)
        assert torch.allclose(here, there, atol=1e-4)
        assert not torch.allclose(here, late, atol=1e-2)

    def test_without_rope_and_window_order_does_not_matter(self):
        model = wake(transformer(audio_rope=False))
        order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(3))
        positions = token_positions(TOKENS)
        tokens = model.audio_projector(voice())
        contexts = [
            model.audio_context(voice(), (FRAMES, 2, 3), positions[index])._replace(tokens_BAE=tokens[:, index])
            for index in (torch.arange(TOKENS), order)
        ]
        hidden = torch.randn(2, FRAMES * 6, 24)
        plain, shuffled = (audio_attention(model)(hidden, context) for context in contexts)
        assert torch.allclose(plain, shuffled, atol=1e-5)

    @pytest.mark.parametrize("batched", [False, True])
    def test_tokens_outside_the_window_have_no_influence(self, batched):
        model = wake(transformer(audio_window=6.0, num_layers=1))
        attention = audio_attention(model)
        audio = token_positions(TOKENS).expand(2, TOKENS) if batched else token_positions(TOKENS)
        context = model.audio_context(voice(), (FRAMES, 1, 1), audio)
        hidden = torch.randn(2, FRAMES, 24)
        before = attention(hidden, context)
        for frame, position in enumerate(latent_positions(FRAMES)):
            outside = (token_positions(TOKENS) - position).abs() > 6.0
            noise = torch.randn(TOKENS, 1) * outside[:, None]
            after = attention(hidden, context._replace(tokens_BAE=context.tokens_BAE + noise))
            assert torch.equal(before[:, frame], after[:, frame])
            others = torch.arange(FRAMES) != frame
            assert not torch.allclose(before[:, others], after[:, others])

    def test_a_latent_that_reaches_no_audio_hears_nothing(self):
        model = wake(transformer(audio_window=6.0))
        attention = audio_attention(model)
        context = model.audio_context(voice(), (FRAMES, 1, 1), video_positions=torch.tensor([-500.0, 5.0, 13.0]))
        output = attention(torch.randn(2, FRAMES, 24), context)
        assert torch.equal(output[:, 0], attention.to_out.get_parameter("0.bias").expand(2, -1))
        (gradient,) = torch.autograd.grad(output[:, 0].sum(), context.tokens_BAE)
        assert torch.equal(gradient, torch.zeros_like(gradient))


class TestAlignment:
    """`initialise_audio_alignment` decides where a fresh head looks."""

    def test_attention_peaks_at_the_offset_of_each_head(self):
        model = transformer(num_attention_heads=4, attention_head_dim=64, audio_dim=32)
        offsets = model.initialise_audio_alignment(reach=8)
        video, audio = torch.tensor([100.0, 50.0, 75.5]), torch.arange(0, 160, 0.5, dtype=torch.float64)
        context = model.audio_context(torch.randn(2, len(audio), 32), (FRAMES, 6, 6), audio, video)
        for block, offsets_N in enumerate(offsets):
            attention = audio_attention(model, block)
            query = attention.query(torch.randn(2, FRAMES * 36, 256), context.query_rotary)
            key, _ = attention.keys_values(context.tokens_BAE, context.key_rotary)
            weights = (torch.einsum("blnd,band->bnla", query, key) / 64**0.5).softmax(-1)
            frames = weights.mean(0).unflatten(1, (FRAMES, -1)).mean(2)  # N, T, A
            peaks = audio[frames.argmax(-1)]
            assert torch.allclose(peaks, video + offsets_N[:, None], atol=1.0)
            near = (audio - (video + offsets_N[:, None])[..., None]).abs() <= 6
            assert ((frames * near).sum(-1) > 3 * near.float().mean(-1)).all()

    def test_offsets_fill_the_reach_and_the_backbone_keeps_its_output(self):
        model = transformer(num_layers=4)
        silent = velocity(model, **inputs())
        offsets = model.initialise_audio_alignment(reach=5).flatten().sort().values
        assert offsets.abs().max() <= 5 and (offsets.diff() < 2 * 2 * 5 / len(offsets)).all()
        assert torch.equal(velocity(model, **inputs(), audio_hidden_states=voice()), silent)

    def test_it_needs_rope(self):
        with pytest.raises(ValueError, match="audio_rope"):
            transformer(audio_rope=False).initialise_audio_alignment()


class TestReferenceResidual:
    """The network adds to the repeated reference."""

    def animation(self, known_frames: int = 1) -> dict[str, Tensor]:
        given = inputs()
        given["hidden_states"][:, LATENT : LATENT + 4] = 0
        given["hidden_states"][:, LATENT : LATENT + 4, :known_frames] = 1
        return given

    def test_untrained_it_returns_the_reference(self):
        model, given = transformer(reference_residual=True), self.animation()
        noisy, reference = given["hidden_states"][:, :LATENT], given["hidden_states"][:, LATENT + 4 :, :1]
        sigma = given["timestep"].view(-1, 1, 1, 1, 1) / 1000
        clean = model.predict_clean(**given, audio_hidden_states=voice())
        assert torch.equal(clean, reference.expand_as(clean))
        assert torch.allclose(velocity(model, **given), (noisy - reference) / sigma)

    def test_known_latents_stay_and_only_the_unknown_are_guessed(self):
        model, given = transformer(reference_residual=True), self.animation(known_frames=2)
        condition = given["hidden_states"][:, LATENT + 4 :]
        clean = model.predict_clean(**given)
        assert torch.equal(clean[:, :, :2], condition[:, :, :2])
        assert torch.equal(clean[:, :, 2], condition[:, :, 0])

    def test_without_reference_it_starts_from_zero(self):
        given = self.animation(known_frames=0)
        assert transformer(reference_residual=True).predict_clean(**given).abs().max() == 0

    def test_the_unknown_condition_is_not_read(self):
        model, given = wake(transformer(reference_residual=True)), self.animation()
        before = velocity(model, **given)
        given["hidden_states"][:, LATENT + 4 :, 1:] += 1
        assert torch.equal(velocity(model, **given), before)

    def test_small_sigmas_do_not_blow_up(self):
        model, given = transformer(reference_residual=True), self.animation()
        at = [velocity(model, **{**given, "timestep": torch.full((2,), 1000 * s)}) for s in (1e-6, SMALLEST_SIGMA)]
        assert torch.equal(*at)

    def test_channels_must_fit(self):
        with pytest.raises(ValueError, match="in_channels"):
            transformer(reference_residual=True, in_channels=16)


def test_bfloat16_weights_with_float32_latents():
    model = wake(transformer(reference_residual=True, audio_window=9.5)).bfloat16()
    given = {**inputs(), "audio_hidden_states": voice()}
    given["encoder_hidden_states"] = given["encoder_hidden_states"].bfloat16()
    result = velocity(model, **given)
    assert result.dtype == torch.float32 and result.isfinite().all()


def test_autocast_stays_close_to_float32():
    model = transformer(audio_window=9.5)
    model.initialise_audio_alignment(output_std=0.1)
    given = {**inputs(), "audio_hidden_states": voice()}
    exact = velocity(model, **given)
    with torch.autocast("cpu", torch.bfloat16):
        rough = velocity(model, **given).float()
    assert (rough - exact).norm() < 0.03 * exact.norm()


def test_projector_works_alone_and_hears_its_neighbourhood():
    projector = transformer(audio_width=16).audio_projector
    features = voice()
    before = projector(features)
    assert before.shape == (2, TOKENS, 16)
    features[:, 20, 0] += 1  # one channel: LayerNorm takes out again what is added to all of them
    changed = ((projector(features) - before).abs().amax((0, 2)) > 1e-4).nonzero().flatten()
    assert changed.tolist() == [18, 19, 20, 21, 22]


def test_blocks_trace_without_a_graph_break():
    model = wake(transformer(audio_window=9.5))
    embedded = model.embed(**inputs(), audio_hidden_states=voice())
    arguments = embedded.hidden_BLM, embedded.context_BSM, embedded.modulation, embedded.rotary, embedded.audio
    traced = torch.compile(model.blocks[0], backend="eager", fullgraph=True)
    assert torch.allclose(traced(*arguments), model.blocks[0](*arguments), atol=1e-6)


def test_parallel_plan_splits_every_per_token_tensor():
    model = wake(transformer(audio_window=9.5))
    given = {**inputs(), "audio_hidden_states": voice()}
    whole = model.embed(**given)

    def share(rank: int) -> Embedded:
        """What one of two ranks holds, with diffusers' split replaced by a slice."""
        half = slice(9 * rank, 9 * rank + 9)

        def split(module: torch.nn.Module, given: tuple, output: Any) -> Any:
            return tuple(part[:, half] for part in output) if isinstance(output, tuple) else output[:, half]

        splits = [name for name, plan in model._cp_plan.items() if isinstance(plan, dict) and 0 in plan]
        hooks = [model.get_submodule(name).register_forward_hook(split) for name in splits]
        embedded = model.embed(**given)
        for hook in hooks:
            hook.remove()
        return embedded

    attention = audio_attention(model)
    heard = [attention(part.hidden_BLM, part.audio) for part in (share(0), share(1))]
    assert torch.allclose(torch.cat(heard, dim=1), attention(whole.hidden_BLM, whole.audio), atol=1e-6)
    assert share(1).rotary[0].shape[1] == 9
