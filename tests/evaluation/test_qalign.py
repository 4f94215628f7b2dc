import sys
from pathlib import Path

import numpy as np
import pytest

from skyreels_audio.evaluation.qalign import PICTURES, QAlign
from skyreels_audio.media import InputError

# The published model's interface, as the worker calls it: `score` of clips of pictures, by task.
TRANSFORMERS = """
class Model:
    def score(self, clips, task_, input_):
        assert input_ == "video"
        print("a library chats")
        level = {"quality": 4.0, "aesthetics": 2.0}[task_]
        return [level + len(clips[0]) / 100 + clips[0][0].getpixel((0, 0))[0] / 1000]

class AutoModelForCausalLM:
    @staticmethod
    def from_pretrained(folder, trust_remote_code, torch_dtype, device_map):
        assert folder.endswith("one-align") and trust_remote_code
        return Model()
"""


@pytest.fixture
def isolated(tmp_path, monkeypatch) -> Path:
    """A folder with another transformers, found before ours: an environment of its own."""
    (tmp_path / "transformers.py").write_text(TRANSFORMERS)
    (tmp_path / "torch.py").write_text("float16 = 'float16'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_the_worker_answers_clip_after_clip(isolated):
    frames = np.full((30, 8, 8, 3), 5, np.uint8)
    with QAlign(Path(sys.executable), isolated / "one-align") as rate:
        assert rate(frames, "quality") == pytest.approx(4 + PICTURES / 100 + 0.005)
        assert rate(frames[:3], "aesthetics") == pytest.approx(2.035)


def test_a_worker_that_dies_is_told(isolated):
    with (
        QAlign(Path(sys.executable), isolated / "other") as rate,
        pytest.raises(InputError, match="worker ended: .*exit 1"),
    ):
        rate(np.zeros((1, 4, 4, 3), np.uint8), "quality")
    with pytest.raises(InputError, match="cannot be started"), QAlign(isolated / "python", isolated):
        pass
