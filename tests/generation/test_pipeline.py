from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from PIL import Image

from skyreels_audio import SkyReelsAudioPipeline
from skyreels_audio.generation.decoding import decode
from skyreels_audio.generation.encoders import encode_prompts


def run(pipeline, seed: Any = 0, **options: Any) -> np.ndarray:
    output = pipeline(generator=torch.Generator().manual_seed(seed), **options)
    frames = np.stack(list(output.frames))
    assert len(frames) == output.num_frames and frames.dtype == np.uint8
    return frames


def test_the_video_lasts_as_long_as_the_audio(pipeline, portrait, voice):
    for samples, fps, frames in [
        (len(voice), 25, 30),
        (16000, 24, 24),
        (16001, 25, 26),
        (100, 25, 1),
        (8000, 29.97, 15),
    ]:
        assert run(pipeline, image=portrait, audio=voice[:samples], fps=fps).shape == (frames, 32, 32, 3)


def test_same_seed_same_video_other_seed_other_video(pipeline, portrait, voice):
    first = run(pipeline, image=portrait, audio=voice)
    assert (run(pipeline, image=portrait, audio=voice) == first).all()
    assert (run(pipeline, seed=1, image=portrait, audio=voice) != first).any()


def test_picture_voice_and_words_each_matter(pipeline, portrait, voice):
    first = run(pipeline, image=portrait, audio=voice, prompt="a woman nods")
    assert (run(pipeline, image=255 - portrait, audio=voice, prompt="a woman nods") != first).any()
    assert (run(pipeline, image=portrait, audio=voice[::-1].copy(), prompt="a woman nods") != first).any()
    assert (run(pipeline, image=portrait, audio=voice, prompt="a man") != first).any()
    assert run(pipeline, audio=voice, prompt="a man").shape == first.shape


def test_from_pretrained_gives_the_same_video(pipeline, portrait, voice, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = SkyReelsAudioPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    assert loaded.settings() == pipeline.settings()
    assert (run(loaded, image=portrait, audio=voice) == run(pipeline, image=portrait, audio=voice)).all()


def test_full_size_components_make_a_video(wan_pipeline, portrait, voice):
    animated = run(wan_pipeline, image=Image.fromarray(portrait), audio=voice)
    assert animated.shape == (30, 32, 32, 3)
    assert (run(wan_pipeline, audio=voice) != animated).any()


def test_editing_sees_the_video_and_hybrid_steps_see_less_of_it(wan_pipeline, voice):
    video = np.random.default_rng(1).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    known = np.ones((40, 32, 32), dtype=bool)
    known[:, 16:] = False
    full = run(wan_pipeline, audio=voice, video=video, known=known)
    changed = video.copy()
    changed[1:, :16] = 255 - changed[1:, :16]
    assert (run(wan_pipeline, audio=voice, video=changed, known=known) != full).any()
    hidden = video.copy()
    hidden[1:, 16:] = 0
    assert (run(wan_pipeline, audio=voice, video=hidden, known=known) == full).all()
    assert (run(wan_pipeline, audio=voice, video=video, known=known, hybrid_steps=1) != full).any()
    blind = [run(wan_pipeline, audio=voice, video=v, known=known, hybrid_steps=0) for v in (video, changed)]
    assert (blind[0] == blind[1]).all()


def test_a_multistep_scheduler_works(pipeline, portrait, voice):
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    other = SkyReelsAudioPipeline(
        **pipeline.components | {"scheduler": scheduler}, generation_defaults=pipeline.config["generation_defaults"]
    )
    assert run(other, image=portrait, audio=voice, num_inference_steps=4).shape == (30, 32, 32, 3)


def test_an_interrupted_run_resumes_to_the_same_video(pipeline, portrait, voice, tmp_path):
    class Interrupted(Exception):
        pass

    def interrupt(phase: str, done: int, total: int) -> None:
        if phase == "sample" and done == 2:
            raise Interrupted

    options = {"image": portrait, "audio": voice, "num_inference_steps": 3, "resume": tmp_path / "state"}
    with pytest.raises(Interrupted):
        run(pipeline, **options, progress=interrupt)
    steps = []
    resumed = run(
        pipeline, **options, progress=lambda phase, done, total: steps.append(done) if phase == "sample" else None
    )
    assert steps == [2, 3]
    assert (resumed == run(pipeline, **options | {"resume": None})).all()
    with pytest.raises(ValueError, match="other inputs"):
        run(pipeline, **options | {"audio_guidance_scale": 2.0})


def test_progress_names_every_phase_and_ends(pipeline, portrait, voice):
    seen = []
    run(pipeline, image=portrait, audio=voice, progress=lambda *event: seen.append(event))
    assert list(dict.fromkeys(phase for phase, _, _ in seen)) == ["encode", "sample", "decode"]
    assert {("encode", 1, 1), ("sample", 2, 2), ("decode", 30, 30)} <= set(seen)


def test_colour_unification_brings_the_reference_colours(pipeline, voice):
    grey = np.full((32, 32, 3), 128, np.uint8)
    grey[:16] = 96
    plain = run(pipeline, image=grey, audio=voice)
    unified = run(pipeline, image=grey, audio=voice, colour_strength=1.0)
    assert abs(unified.mean((1, 2)) - grey.mean((0, 1))).max() < abs(plain.mean((1, 2)) - grey.mean((0, 1))).max()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"audio": None}, "audio is missing"),
        ({"audio": np.zeros(0, np.float32)}, "empty"),
        ({"audio": np.zeros((2, 100), np.float32)}, "mono"),
        ({"audio": np.zeros(100, np.int16)}, "float"),
        ({"image": np.zeros((4, 4), np.uint8)}, "image must be"),
        ({"height": 40}, "multiple of 32; the nearest is 32×32"),
        ({"audio_guidance_scale": "cosine:1"}, "not a guidance scale"),
        ({"num_inference_steps": 0}, "at least 1"),
        ({"fps": -1}, "fps"),
        ({"overlap": 1}, "overlap"),
        ({"steps": 3}, "no setting named steps"),
        ({"latents": torch.zeros(1, 8, 9, 1, 1)}, r"latents must have the shape \(1, 8, 9, 2, 2\)"),
        ({"known": np.ones((30, 32, 32))}, "no video"),
        ({"image": None, "video": np.zeros((30, 32, 32, 3), np.uint8)}, "give video and known"),
        (
            {"image": None, "video": np.zeros((9, 32, 32, 3), np.uint8), "known": np.ones((9, 32, 32))},
            "lasts 30 frames",
        ),
    ],
)
def test_bad_input_is_answered_in_a_sentence(pipeline, portrait, voice, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        pipeline(**{"image": portrait, "audio": voice} | options)


def test_settings_are_taken_whole_or_one_by_one(pipeline, portrait, voice):
    one_by_one = run(pipeline, image=portrait, audio=voice, num_inference_steps=3, fps=20, audio_guidance_scale=None)
    whole = replace(pipeline.settings(), num_inference_steps=3, fps=12)
    assert (run(pipeline, image=portrait, audio=voice, settings=whole, fps=20) == one_by_one).all()


def test_an_error_names_the_setting_alone(pipeline):
    with pytest.raises(
        ValueError, match=r"^overlap must be at least 2 latents and less than the window of 5, not 1\.$"
    ):
        pipeline.settings(overlap=1)


def test_noise_prompts_and_outputs_may_be_given_as_diffusers_users_do(pipeline, portrait, voice):
    inputs = {"image": portrait, "audio": voice, "prompt": "a man", "negative_prompt": "dark"}
    frames = run(pipeline, **inputs)
    noise = torch.randn(1, 8, 9, 2, 2, generator=torch.Generator().manual_seed(0))
    again = noise.clone()
    assert (run(pipeline, **inputs, seed=1, latents=noise) == frames).all()
    assert torch.equal(noise, again)
    embeds = encode_prompts(pipeline, "a man", "dark", None, None, pipeline.settings())
    given = {"prompt_embeds": embeds[:1], "negative_prompt_embeds": embeds[1:]}
    assert (run(pipeline, image=portrait, audio=voice, **given) == frames).all()
    pictures = pipeline(**inputs, latents=noise, output_type="pil").frames
    assert all((np.asarray(picture) == frame).all() for picture, frame in zip(pictures, frames, strict=True))
    latents = pipeline(**inputs, latents=noise, output_type="latent").frames
    decoded = [frame.numpy() for frame in decode(latents, pipeline.vae)]
    assert (np.stack(decoded)[: len(frames)] == frames).all()


def test_a_callback_sees_every_step_and_may_change_it(pipeline, portrait, voice):
    steps = []

    def look(pipe, step, t, given):
        assert pipe is pipeline
        steps.append((step, float(t), given["latents"].clone()))
        return {}

    inputs = {"image": portrait, "audio": voice, "num_inference_steps": 3}
    frames = run(pipeline, **inputs, callback_on_step_end=look)
    assert [step for step, _, _ in steps] == [0, 1, 2] and steps[0][1] == 1000
    assert (frames == run(pipeline, **inputs)).all()
    kept = steps[-1][2]
    changed = run(pipeline, **inputs, seed=1, callback_on_step_end=lambda pipe, step, t, given: {"latents": kept})
    assert (changed == frames).all()


def test_unknown_defaults_are_rejected(pipeline):
    with pytest.raises(ValueError, match="step_count"):
        SkyReelsAudioPipeline(**pipeline.components, generation_defaults={"step_count": 3})
