import json
import socket
from pathlib import Path

import pytest
import torch

from skyreels_audio.media import InputError
from skyreels_audio.training.flow import FlowTask
from skyreels_audio.training.trainer import fit
from tests.training.flow_parts import NoiseSource, flow_recipe, save_transformer
from tests.training.processes import end, start, train_as_rank

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


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


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


def two_processes(folder: Path, parallel: str, steps: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [start(train_as_rank, rank, folder, parallel, steps, port) for rank in range(2)]
    assert [end(process) for process in ranks] == [0, 0]


@pytest.mark.parametrize("parallel", ["fsdp", "ddp"])
def test_two_processes_train_as_one(folder, parallel):
    """The same losses to 1e-5 over 20 steps, and a state of two goes on in one."""
    recipe = flow_recipe(folder)
    alone = fit(task_of(recipe), recipe.optimisation, folder / "alone")
    two_processes(folder, parallel, 20)
    ours, theirs = losses(folder / "alone"), losses(folder / parallel)
    assert len(ours) == len(theirs) == 20
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1e-5
    longer = recipe.optimisation.model_copy(update={"steps": 22})
    state = fit(task_of(recipe), longer, folder / parallel)
    expected = fit(task_of(recipe), longer, folder / "alone")
    assert state.step == 22 and alone.step == 20
    for name, tensor in expected.averaged.items():
        torch.testing.assert_close(state.averaged[name], tensor, rtol=1e-3, atol=1e-5)


def test_a_state_of_one_goes_on_in_two(folder):
    recipe = flow_recipe(folder)
    shorter = recipe.optimisation.model_copy(update={"steps": 10})
    fit(task_of(recipe), shorter, folder / "fsdp")
    fit(task_of(recipe), recipe.optimisation.model_copy(update={"steps": 14}), folder / "alone")
    two_processes(folder, "fsdp", 14)
    difference = [abs(a - b) for a, b in zip(losses(folder / "alone"), losses(folder / "fsdp"), strict=True)]
    assert max(difference) < 1e-5
