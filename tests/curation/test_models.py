"""Stages that call real models: through a stub server, or the real classes at tiny size."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from curation_support import scene, sound, write
from PIL import Image

from skyreels_audio.curation.audio import Audio
from skyreels_audio.curation.caption import Caption
from skyreels_audio.curation.footage import Source
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.synchrony import BOTH, WANDERING, Synchrony
from skyreels_audio.media import InputError


@pytest.fixture
def captioner() -> Iterator[tuple[str, list[Any]]]:
    """An OpenAI-compatible server, and what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"data": [{"id": "captioner"}]})

        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer({"choices": [{"message": {"content": " A person talks\n before a wall. "}}]})

        def _answer(self, body: dict[str, Any]) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", asked
    server.shutdown()


def test_a_captioner_is_asked_with_frames(captioner: tuple[str, list[Any]], tmp_path: Path) -> None:
    url, asked = captioner
    stage = Caption(server=url, model="captioner")
    stage.check()
    path = write(tmp_path / "v.mp4", scene(0, 25))
    with Source(str(path)):
        clip = stage(Clip("a", str(path), 0.0, 1.0))
    assert (clip.caption, clip.caption_by) == ("A person talks before a wall.", "captioner")
    *images, text = asked[0]["messages"][0]["content"]
    assert len(images) == 4 and "Describe it" in text["text"] and asked[0]["model"] == "captioner"
    encoded = images[0]["image_url"]["url"].removeprefix("data:image/jpeg;base64,")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))), int)
    assert np.abs(shown - scene(0, 25)[0]).mean() < 6


def test_a_captioner_that_does_not_answer_is_told_before_a_run() -> None:
    with pytest.raises(InputError, match="no captioner answers at http://127.0.0.1:9"):
        Caption(server="http://127.0.0.1:9/v1").check()


def test_whisper_tells_the_language(tmp_path: Path) -> None:
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    size: dict[str, Any] = {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "ffn_dim")}
    size |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "d_model": 16}
    size |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    model = WhisperForConditionalGeneration(WhisperConfig(vocab_size=100, num_mel_bins=80, **size))
    model.generation_config = GenerationConfig(
        decoder_start_token_id=1, lang_to_id={"<|en|>": 50, "<|de|>": 51}, is_multilingual=True, pad_token_id=0
    )
    model.save_pretrained(tmp_path)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(tmp_path)
    stage = Audio(whisper=tmp_path)
    stage.check()
    stage.setup()
    assert stage._language(sound(0, 2.0)) in ("en", "de")


def test_without_a_face_synchrony_says_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", scene(0, 50), sound(0, 2.0))
    with Source(str(path)):
        clip = Synchrony()(Clip("a", str(path), 0.0, 2.0, has_audio=True))
    assert clip.sync_offset is None and clip.sync_confidence is None and clip.sync_method is not None


def test_the_sync_expert_is_asked_about_the_face(tmp_path: Path) -> None:
    from skyreels_audio.models.syncnet import SyncNet

    path = write(tmp_path / "v.mp4", scene(0, 80), sound(0, 3.2))
    stage = Synchrony(method="expert")
    stage._expert = SyncNet(embedding=8, scale=0.05, side=96, normalise=True, zero_edges=False).eval()
    boxes = np.tile(np.array([8, 8, 56, 56], np.float32), (80, 1))
    boxes[3] = np.nan
    with Source(str(path)):
        clip = stage(Clip("a", str(path), 0.0, 3.2, has_audio=True, height=64, boxes=boxes.ravel()))
        unseen = stage(Clip("a", str(path), 0.0, 3.2, has_audio=True, height=64))
    assert clip.sync_offset is not None and abs(clip.sync_offset) <= 15
    assert clip.sync_confidence is not None and clip.sync_confidence >= 0 and clip.sync_wander is not None
    assert unseen.sync_offset is None


def test_landmarks_and_sync_expert_are_asked_together(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", scene(0, 80), sound(0, 3.2))
    points = np.random.default_rng(0).uniform(8, 56, (80, 68, 2)).astype(np.float32)
    boxes = np.tile(np.array([8, 8, 56, 56], np.float32), (80, 1))
    stage = Synchrony()
    stage.check()
    with Source(str(path)):
        known = {"has_audio": True, "height": 64, "boxes": boxes.ravel(), "landmarks": points.ravel()}
        clip = stage(Clip("a", str(path), 0.0, 3.2, **known))
    assert clip.sync_method == BOTH and clip.sync_offset is not None and abs(clip.sync_offset) <= 15
    assert clip.sync_confidence is not None and clip.sync_confidence < 0.4  # noise and noise have little in common
    assert clip.sync_wander == 0 or (clip.sync_wander or 0) >= WANDERING
    with pytest.raises(InputError, match="method: expert"):
        Synchrony(weights=tmp_path / "syncnet_v2.model").check()


def test_a_missing_sync_expert_is_told_before_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="syncnet_v2.model"):
        Synchrony(method="expert", weights=tmp_path / "syncnet_v2.model").check()
