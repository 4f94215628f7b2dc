"""The painter of portraits, from drawn people to an exported autoencoder, at tiny size."""

from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from skyreels_audio.models import taef2
from skyreels_audio.models.portrait_autoencoder import PortraitAutoencoder
from skyreels_audio.synthetic.portrait_mesh import fit_mesh
from skyreels_audio.training import portrait_autoencoder, portrait_data
from skyreels_audio.training.motion.recipe import PortraitAutoencoderRecipe, PortraitData
from skyreels_audio.training.options import Optimisation
from skyreels_audio.training.portrait_autoencoder import PortraitAutoencoderTask
from skyreels_audio.training.trainer import fit


def test_portraits_become_an_autoencoder(tmp_path, monkeypatch):
    monkeypatch.setattr(portrait_data, "SHARD", 4)
    monkeypatch.setattr(portrait_autoencoder, "fit_mesh", lambda: fit_mesh(range(1, 81, 2)))
    torch.manual_seed(0)
    for name, module in (("encoder", taef2.encoder()), ("decoder", taef2.decoder())):
        save_file(module.half().state_dict(), tmp_path / f"{name}.safetensors")
    recipe = PortraitAutoencoderRecipe(
        task="portrait-autoencoder",
        output=tmp_path / "run",
        data=PortraitData(folder=tmp_path / "portraits", portraits=8, held_out=4, size=64, taef2=tmp_path),
        model={"width": 16, "blocks": 1, "code_width": 16},
        pixels_from=24,
        optimisation=Optimisation(
            steps=26, batch=4, learning_rate=0.01, warmup_steps=2, precision="float32", save_every=26, sample_every=26,
            log_every=26,
        ),
    )  # fmt: skip
    task = PortraitAutoencoderTask(recipe, torch.device("cpu"))
    before = np.mean([float(task.loss(step)[0]) for step in range(4)])
    trained: Any = task.modules["vae"]
    painter = {name: value.clone() for name, value in trained.painter.state_dict().items()}
    state = fit(task, recipe.optimisation, recipe.output)
    assert np.mean([float(task.loss(step)[0]) for step in range(4)]) < 0.8 * before
    after = trained.painter.state_dict()
    assert any(not torch.equal(after[name], value) for name, value in painter.items())  # by the last two steps

    with state.averaging() as averaged:
        task.export(averaged, tmp_path / "export")
    vae = PortraitAutoencoder.from_pretrained(tmp_path / "export" / "portrait_vae", torch_dtype=torch.float32)
    codes = task.held_out.batch([0, 1]).codes_BC[..., None, None, None]
    assert vae.decode(codes).sample.shape == (2, 3, 1, 64, 64)
    assert len(list((tmp_path / "portraits" / "train").glob("*.npz"))) == 2
