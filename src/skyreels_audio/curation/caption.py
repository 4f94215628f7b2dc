"""Stage 8: one sentence that says what the clip shows, as a prompt would."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import PrivateAttr

from skyreels_audio.curation.footage import footage
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.stage import Stage, need_folder
from skyreels_audio.media import InputError

PROMPT = (
    "These are frames of one short video of a person talking. Describe it in one or two plain sentences, as a prompt "
    "for making such a video: who is seen and how they look, what they wear, the background and the light, how the "
    "shot is framed, what the person does with face, head and hands, and their mood. Do not guess names, and do not "
    "say what cannot be seen."
)
FRAMES = 4  # shown to the captioner
TIMEOUT = 120  # seconds that a server may take


class Caption(Stage):
    """By a vision-language model (SkyCaptioner-V1, any Qwen2.5-VL), else a sentence of what was measured.

    server: base URL of an OpenAI-compatible API, such as http://localhost:8000/v1, and model: the name it is served
    under. folder: the model in transformers' layout, run here.
    """

    name: ClassVar[str] = "caption"
    server: str | None = None
    model: str = "Skywork/SkyCaptioner-V1"
    folder: Path | None = None
    prompt: str = PROMPT
    _local: Any = PrivateAttr(None)

    def check(self) -> None:
        if self.folder is not None:
            need_folder(self.name, self.folder, "a vision-language model")
        if self.server is not None:
            try:
                self._ask(f"{self.server.rstrip('/')}/models", None)
            except OSError as error:
                raise InputError(f"Stage caption: no captioner answers at {self.server} ({error}).") from None

    def setup(self) -> None:
        if self.folder is not None:
            from transformers import AutoModelForImageTextToText, AutoProcessor

            model: Any = AutoModelForImageTextToText.from_pretrained(self.folder, dtype="auto").eval()
            self._local = AutoProcessor.from_pretrained(self.folder), model.to("cuda" if self.gpus else "cpu")

    def __call__(self, clip: Clip) -> Clip:
        if self.server is None and self.folder is None:
            return replace(clip, caption=measured_caption(clip), caption_by="measured")
        frames_FHWC = footage(clip).frames_FHWC
        shown = frames_FHWC[np.linspace(0, len(frames_FHWC) - 1, FRAMES).astype(int)]
        said = self._by_server(shown) if self.server is not None else self._by_model(shown)
        return replace(clip, caption=" ".join(said.split()), caption_by=self.model if self.server else str(self.folder))

    def _by_server(self, frames_FHWC: np.ndarray) -> str:
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{_jpeg(frame)}"}}
            for frame in frames_FHWC
        ]
        content.append({"type": "text", "text": self.prompt})
        body = {"model": self.model, "messages": [{"role": "user", "content": content}], "max_tokens": 200}
        assert self.server is not None
        answer = self._ask(f"{self.server.rstrip('/')}/chat/completions", body | {"temperature": 0})
        return answer["choices"][0]["message"]["content"]

    @staticmethod
    def _ask(url: str, body: dict[str, Any] | None) -> Any:
        import json
        import os
        import urllib.request

        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '')}",
        }
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return json.load(response)

    def _by_model(self, frames_FHWC: np.ndarray) -> str:
        import torch
        from PIL import Image

        processor, model = self._local
        content: list[dict[str, Any]] = [{"type": "image", "image": Image.fromarray(frame)} for frame in frames_FHWC]
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": self.prompt}]}]
        inputs = processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=200, do_sample=False)
        return processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]


def measured_caption(clip: Clip) -> str:
    """What the earlier stages measured, and nothing that they did not, as one sentence."""
    share, faces = clip.face_share, round(clip.faces or 0)
    who = {0: "nobody whose face is seen", 1: "one person"}.get(faces, f"{faces} people")
    shot = "A video of"
    if share is not None:
        shot = "A close-up of" if share > 0.45 else "A medium shot of" if share > 0.2 else "A wide shot of"
    parts = []
    if clip.yaw is not None:
        parts.append(
            "facing the camera" if clip.yaw < 20 else "turning the head" if clip.yaw < 45 else "seen from the side"
        )
    if clip.speech is not None and faces:
        parts.append("speaking" if clip.speech > 0.3 else "silent" if clip.speech < 0.05 else "saying a few words")
    if clip.brightness is not None:
        parts.append(
            "in dim light"
            if clip.brightness < 0.25
            else "in bright light"
            if clip.brightness > 0.65
            else "in even light"
        )
    if clip.shake is not None:
        parts.append("the camera still" if clip.shake < 2 else "the camera moving")
    return f"{shot} {who}{''.join(f', {part}' for part in parts)}."


def _jpeg(frame: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="JPEG", quality=90)
    return base64.b64encode(buffer.getvalue()).decode()
