import json
from pathlib import Path

import pytest
import torch

from skyreels_audio.media import InputError
from skyreels_audio.training.checkpoint import State
from skyreels_audio.training.flow import FlowTask
from skyreels_audio.training.trainer import fit
from tests.training.flow_parts import NoiseSource, flow_recipe, save_transformer
from tests.training.processes import train_together
from tests.training.small_task import options

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_transformer(tmp_path / "model")
    return tmp_path


def task_of(recipe) -> FlowTask:
    torch.manual_seed(0)
    return FlowTask(recipe, CPU, NoiseSource())


def losses_of(task: FlowTask) -> torch.Tensor:
    batch = NoiseSource().batch(0, range(2))
    noise, ungated = torch.ones_like(batch.clean_BCTHW), torch.zeros(2, dtype=torch.bool)
    return task.losses(batch, batch.conditions, noise, torch.full((2,), 0.7), ungated, task.recipe.loss)[0].detach()


def losses(run: Path, name: str = "loss") -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


def difference(ours: Path, theirs: Path, name: str = "loss") -> float:
    return max(abs(a - b) for a, b in zip(losses(ours, name), losses(theirs, name), strict=True))


def test_audio_alone_is_trained_in_the_first_stage(folder):
    recipe = flow_recipe(folder, train="audio", curriculum={})
    task = task_of(recipe)
    before = {name: p.detach().clone() for name, p in task.modules["transformer"].named_parameters()}
    state = fit(task, recipe.optimisation.model_copy(update={"steps": 2}), folder / "run")
    changed = {name for name, p in task.modules["transformer"].named_parameters() if not torch.equal(p, before[name])}
    assert changed and all("audio" in name for name in changed)
    assert all("audio" in name for name in state.trained())


def test_losses_by_task_and_time_and_voice_are_told(folder):
    recipe = flow_recipe(folder)
    task = task_of(recipe)
    told = task.evaluate(task.modules.eval(), 0)
    assert {"held_out/image", "held_out/editing", "held_out/text", "held_out/t=0.5"} <= told.keys()
    assert told["held_out/lips/own_voice"] != told["held_out/lips/other_voice"]


def test_adapters_are_a_file_that_generate_loads(folder):
    from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin

    from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel

    recipe = flow_recipe(folder, train="lora", lora={"rank": 2, "alpha": 4})
    task = task_of(recipe)
    state = fit(task, recipe.optimisation.model_copy(update={"steps": 3}), folder / "run")
    assert all("lora" in name for name in state.trained())
    with state.averaging() as modules:
        task.export(modules, folder / "lora")
        expected = losses_of(task)
    fresh = SkyReelsAudioTransformer3DModel.from_pretrained(folder / "model" / "transformer")
    weights = WanLoraLoaderMixin.lora_state_dict(str(folder / "lora"))
    WanLoraLoaderMixin.load_lora_into_transformer(weights, fresh)
    plain = task_of(flow_recipe(folder))
    plain.modules["transformer"] = fresh
    torch.testing.assert_close(losses_of(plain), expected, rtol=1e-4, atol=1e-5)


def test_a_public_audio_model_is_refused(tmp_path):
    save_transformer(tmp_path / "model", audio_dim=None)
    with pytest.raises(InputError, match="no audio branch"):
        task_of(flow_recipe(tmp_path))


@pytest.mark.parametrize("parallel", ["fsdp", "ddp"])
def test_two_processes_train_as_one(folder, parallel):
    """The same losses to 1e-5 over 20 steps."""
    recipe = flow_recipe(folder)
    fit(task_of(recipe), recipe.optimisation, folder / "alone")
    train_together(2, folder, parallel, parallel=parallel)
    assert len(losses(folder / parallel)) == 20
    assert difference(folder / "alone", folder / parallel) < 1e-5


@pytest.mark.parametrize("parallel", ["fsdp", "ddp"])
def test_states_move_between_one_two_and_four_processes(folder, parallel):
    """1 → 2 → 4 → 1, two steps each: the losses and averages of one that was never stopped."""
    recipe = flow_recipe(folder)

    def alone(name: str, steps: int) -> State:
        return fit(task_of(recipe), recipe.optimisation.model_copy(update={"steps": steps}), folder / name)

    expected = alone("straight", 8)
    alone("moved", 2)
    train_together(2, folder, "moved", parallel=parallel, steps=4)
    train_together(4, folder, "moved", parallel=parallel, steps=6)
    state = alone("moved", 8)
    assert len(losses(folder / "moved")) == 8
    assert difference(folder / "straight", folder / "moved") < 1e-5
    for name, tensor in expected.averaged.items():
        torch.testing.assert_close(state.averaged[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("ranks", "changes"),
    [
        (2, {"parallel": "fsdp", "gradient_checkpointing": True}),
        (2, {"parallel": "ddp", "accumulation": 2}),
        (4, {"parallel": "fsdp"}),
    ],
)
def test_processes_that_share_the_tokens_of_a_sample_train_as_one(folder, ranks, changes):
    """Losses to 1e-5 and gradients; of 27 tokens, which are padded; four processes are two groups of two."""
    recipe = flow_recipe(folder)
    fit(task_of(recipe), recipe.optimisation.model_copy(update={"steps": 6}), folder / "alone")
    train_together(ranks, folder, "shared", steps=6, context_parallel=2, **changes)
    assert len(losses(folder / "shared")) == 6
    assert difference(folder / "alone", folder / "shared") < 1e-5
    assert difference(folder / "alone", folder / "shared", "gradient_norm") < 1e-4


def test_tokens_are_shared_by_processes_that_are_there(folder):
    recipe = flow_recipe(folder)
    with pytest.raises(InputError, match="context_parallel: 2 must divide the 1 processes"):
        task_of(recipe.model_copy(update={"optimisation": options(batch=4, context_parallel=2)}))
