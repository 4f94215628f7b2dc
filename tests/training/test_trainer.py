import json
import random
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml

from skyreels_audio.media import InputError
from skyreels_audio.training.checkpoint import NORMS, State
from skyreels_audio.training.recipe import read_recipe
from skyreels_audio.training.trainer import fit, learning_rate
from tests.training.processes import end, start, train_slowly, wait_until
from tests.training.small_task import LineTask, PartsTask, options


def same(a: State, b: State) -> bool:
    ours, theirs = a.tensors(), b.tensors()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def untimed(folder: Path) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seconds_per_step"} for row in rows(folder)]


def events(folder: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text().splitlines()]


def test_a_run_that_goes_on_is_the_run_that_was_never_stopped(tmp_path):
    straight = fit(LineTask(), options(steps=20, schedule="constant"), tmp_path / "a")
    for steps in (13, 20):
        resumed = fit(LineTask(), options(steps=steps, schedule="constant"), tmp_path / "b")
    assert same(resumed, straight) and resumed.step == 20
    assert untimed(tmp_path / "b")[-1] == untimed(tmp_path / "a")[-1]


def test_killed_anywhere_it_goes_on_bit_for_bit(tmp_path):
    """-9 at two random moments, then to the end."""
    train_slowly(tmp_path / "a", 30)
    killed, chance = tmp_path / "b", random.Random(0)
    for _ in range(2):
        metrics = killed / "metrics.jsonl"
        wanted = (len(rows(killed)) if metrics.exists() else 0) + chance.randrange(4, 12)
        run = start(train_slowly, killed, 30)
        wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") >= wanted, run)  # noqa: B023
        run.kill()
        assert end(run) == -signal.SIGKILL
    assert end(start(train_slowly, killed, 30)) == 0
    assert (killed / "ended").read_text() == "finished 30"
    assert untimed(killed) == untimed(tmp_path / "a")
    assert same(*(fit(LineTask(), options(steps=30), folder) for folder in (killed, tmp_path / "a")))


def test_sigterm_saves_and_ends(tmp_path):
    run = start(train_slowly, tmp_path, 50_000)
    wait_until((tmp_path / "metrics.jsonl").exists, run)
    run.terminate()
    assert end(run) == 0
    said = (tmp_path / "ended").read_text().split()
    assert said[0] == "stopped"
    assert (tmp_path / f"state-{int(said[1]):07d}").exists()


def test_rows_of_steps_that_are_done_again_are_not_told_twice(tmp_path):
    fit(LineTask(), options(steps=20), tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 22, "loss": 1.0}\n{"step": 2')  # what a killed process leaves behind
    fit(LineTask(), options(), tmp_path)
    told = [row["step"] for row in rows(tmp_path) if "loss" in row]
    assert told == list(range(2, 41, 2))


def test_a_bad_batch_is_skipped_and_told(tmp_path):
    task = LineTask(spoilt=frozenset({7, 8}))
    state = fit(task, options(), tmp_path)
    assert state.step == 40 and all(torch.isfinite(t).all() for t in state.tensors().values())
    assert len(events(tmp_path)) == 2 and "nan" in events(tmp_path)[0]


def test_a_spike_is_skipped(tmp_path):
    task = LineTask(scale={NORMS + 5: 1e6})
    fit(task, options(steps=NORMS + 10), tmp_path)
    assert len(events(tmp_path)) == 1 and "gradient's norm" in events(tmp_path)[0]


def test_many_bad_batches_in_a_row_lead_back_to_the_last_state_and_past_them(tmp_path):
    task = LineTask(spoilt=frozenset(range(23, 26)))
    state = fit(task, options(bad_steps=3), tmp_path)
    assert "back to step 20" in events(tmp_path)[-1]
    assert task.seen == [*range(26), *range(26, 46)] and state.jump == 6
    assert [row["step"] for row in rows(tmp_path) if "loss" in row] == list(range(2, 41, 2))


def test_without_end_of_bad_batches_it_stops_with_a_sentence(tmp_path):
    with pytest.raises(InputError, match="5 batches in a row"):
        fit(LineTask(spoilt=frozenset(range(23, 500))), options(), tmp_path)
    assert (tmp_path / "state-0000020").exists()


def test_a_damaged_state_gives_way_to_the_one_before(tmp_path):
    straight = fit(LineTask(), options(), tmp_path / "a")
    fit(LineTask(), options(), tmp_path / "b")
    newest = tmp_path / "b" / "state-0000040"
    part = next(newest.glob("*.distcp"))
    damaged = bytearray(part.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    part.write_bytes(damaged)
    task = LineTask()
    state = fit(task, options(), tmp_path / "b")
    assert task.seen == list(range(30, 40)) and same(state, straight)
    for each in (tmp_path / "b").glob("state-*"):
        (each / "state.json").unlink()
    with pytest.raises(InputError, match="damaged"):
        fit(LineTask(), options(), tmp_path / "b")
    shutil.rmtree(tmp_path / "b")


def test_states_of_another_model_are_refused(tmp_path):
    fit(PartsTask(4), options(batch=4), tmp_path)
    with pytest.raises(InputError, match="another model"):
        fit(LineTask(), options(), tmp_path)


def test_a_full_disk_ends_in_a_sentence_and_leaves_the_last_state(tmp_path):
    fit(LineTask(), options(steps=20), tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))  # what a write past it raises is what a full disk does
    try:
        with pytest.raises(InputError, match="state-0000020 is intact"):
            fit(LineTask(), options(), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in tmp_path.glob("state*")) == ["state-0000010", "state-0000020"]
    assert fit(LineTask(), options(), tmp_path).step == 40


def test_accumulated_parts_are_the_whole_batch(tmp_path):
    whole = fit(PartsTask(8), options(batch=8), tmp_path / "a")
    parts = fit(PartsTask(8), options(batch=8, accumulation=4), tmp_path / "b")
    for name, tensor in whole.tensors().items():
        torch.testing.assert_close(parts.tensors()[name], tensor, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="cannot be divided"):
        fit(PartsTask(8), options(batch=8, accumulation=3), tmp_path / "c")
    with pytest.raises(InputError, match="in one piece"):
        fit(LineTask(), options(accumulation=2), tmp_path / "d")


def test_averaged_weights_are_lent_for_as_long_as_they_are_looked_at(tmp_path):
    state = fit(LineTask(), options(steps=10), tmp_path)
    trained = {name: p.detach().clone() for name, p in state.trained().items()}
    with state.averaging() as modules:
        assert not modules["line"].training
        assert all(torch.equal(p, state.averaged[name]) for name, p in state.trained().items())
        assert any(not torch.equal(p, trained[name]) for name, p in state.trained().items())
    assert modules["line"].training and all(torch.equal(p, trained[name]) for name, p in state.trained().items())


def test_the_learning_rate_warms_up_then_falls_or_stays():
    cosine, constant = options(), options(schedule="constant")
    rates = [learning_rate(step, cosine) for step in range(41)]
    assert rates[5] == max(rates) == 0.01 and rates[-1] == pytest.approx(0.001) and rates[0] == 0.002
    assert {learning_rate(step, constant) for step in range(5, 41)} == {0.01}


def recipe(tmp_path: Path) -> Path:
    values = {"task": "sync", "output": "out", "manifests": ["m"], "optimisation": options().model_dump(mode="json")}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_recipes_are_strict(tmp_path):
    path = recipe(tmp_path)
    path.write_text(path.read_text() + "surprise: 1\n")
    with pytest.raises(InputError, match="surprise"):
        read_recipe(path)


def test_a_recipe_extends_another_and_takes_changes(tmp_path):
    path = recipe(tmp_path)
    (tmp_path / "more.yaml").write_text("extends: recipe.yaml\ntemperature: 0.5\n")
    changed = read_recipe(tmp_path / "more.yaml", {"optimisation.steps": 3})
    expected = read_recipe(path)
    assert changed.optimisation.steps == 3
    update = {"temperature": 0.5, "optimisation": expected.optimisation.model_copy(update={"steps": 3})}
    assert changed == expected.model_copy(update=update)
    for name, said in (("optimisation.stps", "optimisation.stps"), ("task.x", "no section"), ("seed", "seed")):
        with pytest.raises(InputError, match=said):
            read_recipe(path, {name: "many"})
