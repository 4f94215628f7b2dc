import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
from skyreels_audio.media import InputError
from skyreels_audio.training.recipe import read_recipe
from skyreels_audio.training.rendered.distil import DistilTask
from skyreels_audio.training.trainer import fit, make_task, train


def run(recipe_path, output, stop_after=None):
    """Weights after training into ``output``; ``stop_after``: a step at which the run is killed and then repeated."""
    recipe = read_recipe(recipe_path)

    class Killed(Exception):
        pass

    def kill(step, loss):
        if step == stop_after:
            raise Killed

    def once(on_step):
        torch.manual_seed(recipe.seed)
        task = make_task(recipe, torch.device("cpu"))
        return fit(task, recipe.optimisation, output, on_step=on_step)

    if stop_after is not None:
        with pytest.raises(Killed):
            once(kill)
    return once(None)


def test_resumed_equals_uninterrupted(recipe_path, tmp_path):
    straight = run(recipe_path, tmp_path / "a")
    resumed = run(recipe_path, tmp_path / "b", stop_after=6)  # the last state is of step 4
    assert straight.step == resumed.step == 8
    for name, value in straight.tensors().items():
        assert torch.equal(value, resumed.tensors()[name]), name


def test_train_exports_a_pipeline_that_talks(recipe_path):
    folder = train(recipe_path)
    pipeline = SkyReelsAudioPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    image = np.full((128, 128, 3), 90, np.uint8)
    voice = np.sin(np.arange(6400) / 20).astype(np.float32)
    frames = list(pipeline(image, voice, "person 1", height=128, width=128, num_inference_steps=2).frames)
    assert len(frames) == 10 and frames[0].shape == (128, 128, 3)


def test_metrics_tell_of_both_voices(recipe_path):
    recipe = read_recipe(recipe_path)
    train(recipe_path)
    rows = [json.loads(line) for line in (recipe.output / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "flow_loss", "viseme_loss"} <= set().union(*rows)
    assert any("held_out/lip_error_own" in row for row in rows)


def test_untrained_model_repeats_the_reference(recipe_path):
    task = make_task(read_recipe(recipe_path), torch.device("cpu"))
    values = task.evaluate(task.modules.eval(), 0)
    assert values["held_out/lip_error_own"] == pytest.approx(1.0, abs=1e-4)


def distil_recipe(recipe_path, tmp_path, **distillation):
    """The recipe that distils what ``recipe_path`` trains."""
    values = yaml.safe_load(recipe_path.read_text())
    values |= {"task": "rendered-distil", "output": str(tmp_path / "student")}
    values |= {"distillation": {"teacher": str(train(recipe_path))} | distillation}
    path = tmp_path / "distil.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_student_that_takes_the_teachers_own_steps_has_nothing_to_learn(recipe_path, tmp_path):
    """With one teacher step for each of the student's and no guidance, the target is the teacher's prediction."""
    path = distil_recipe(recipe_path, tmp_path, steps=3, teacher_steps=1, audio_guidance=1.0)
    task = make_task(read_recipe(path), torch.device("cpu"))
    assert isinstance(task, DistilTask)
    losses = [values["distillation_loss"] for step in range(8) if "distillation_loss" in (values := task.loss(step)[1])]
    assert losses and max(losses) < 1e-9


def test_the_target_is_where_the_teachers_guided_steps_lead(recipe_path, tmp_path):
    path = distil_recipe(recipe_path, tmp_path, steps=2, teacher_steps=3, audio_guidance=2.0)
    task = make_task(read_recipe(path), torch.device("cpu"))
    assert isinstance(task, DistilTask)
    sample = task.draw(4, torch.Generator().manual_seed(0))
    noisy = torch.randn(sample.clean_BCTHW.shape, generator=torch.Generator().manual_seed(1))
    z = noisy
    for sigma, following in ((0.9, 0.7), (0.7, 0.5), (0.5, 0.3)):
        z = z + (following - sigma) * (z - task.guided(sample, z, sigma)) / sigma
    target = task.target(sample, noisy, 0.9, 0.3)
    in_one_step = noisy + (0.3 - 0.9) * (noisy - target) / 0.9
    assert torch.allclose(in_one_step, z, atol=1e-5)


def test_a_distilled_checkpoint_is_a_checkpoint(recipe_path, tmp_path):
    folder = train(distil_recipe(recipe_path, tmp_path))
    assert SkyReelsAudioPipeline.from_pretrained(folder, dtype=torch.float32).settings().height


@pytest.mark.parametrize("name", ["tiny-vae", "tiny-vae-2", "tiny", "tiny-portrait-vae", "tiny-portrait"])
def test_the_projects_own_recipes_can_be_read(name):
    assert read_recipe(Path(__file__).parents[3] / "recipes" / f"{name}.yaml").optimisation.steps


def test_defaults_of_the_export_are_checked_before_training(recipe_path):
    recipe_path.write_text(recipe_path.read_text() + "generation_defaults: {num_steps: 3}\n")
    with pytest.raises(InputError, match="num_steps"):
        read_recipe(recipe_path)
