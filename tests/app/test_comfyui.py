"""The ComfyUI nodes, called as ComfyUI calls them; with a ComfyUI installed, by its own types."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from stub_renderer import StubRenderer

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"
TYPES = {"IMAGE", "AUDIO", "STRING", "INT", "FLOAT", "BOOLEAN", "SKYREELS_MODEL"}


@pytest.fixture(scope="module")
def pack() -> ModuleType:
    """Imported as ComfyUI imports a folder of ``custom_nodes``."""
    spec = importlib.util.spec_from_file_location("comfy_pack", FOLDER / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["comfy_pack"] = module
    spec.loader.exec_module(module)
    return module


def test_nodes_declare_what_comfyui_asks_for(pack: ModuleType) -> None:
    assert set(pack.NODE_CLASS_MAPPINGS) == set(pack.NODE_DISPLAY_NAME_MAPPINGS)
    for node in pack.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(node(), node.FUNCTION)) and node.CATEGORY
        assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES) and set(node.RETURN_TYPES) <= TYPES
        for kind, *more in (spec for group in node.INPUT_TYPES().values() for spec in group.values()):
            assert isinstance(kind, list) or kind in TYPES
            assert all(isinstance(each, dict) for each in more)


def sound(seconds: float) -> dict[str, Any]:
    time_n = torch.arange(round(44_100 * seconds)) / 44_100
    return {"waveform": torch.sin(2 * torch.pi * 150 * time_n).expand(1, 2, -1) * 0.4, "sample_rate": 44_100}


@pytest.mark.parametrize("name", ["SkyReelsAudioTalkingPortrait", "SkyReelsAudioEditVideo"])
def test_frames_and_voice_come_back(pack: ModuleType, name: str) -> None:
    node = pack.NODE_CLASS_MAPPINGS[name]
    defaults = {
        key: (spec[1]["default"] if len(spec) > 1 else spec[0][0])
        for group in node.INPUT_TYPES().values()
        for key, spec in group.items()
        if len(spec) > 1 or isinstance(spec[0], list)
    }
    picture = torch.from_numpy(np.full((3, 65, 66, 3), 0.5, np.float32))
    given = {"picture": picture} if "Portrait" in name else {"frames": picture}
    voice = sound(0.4)
    frames, same, fps = node().make(model=StubRenderer("", ""), voice=voice, **given, **defaults)
    assert frames.dtype == torch.float32 and frames.shape == (10, 128, 128, 3) and fps == 25
    assert frames.min() >= 0 and frames.max() <= 1 and same is voice
