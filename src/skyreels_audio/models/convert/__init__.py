"""Public checkpoints → model folders of ours."""

from skyreels_audio.models.convert.audio_models import convert_audio_model
from skyreels_audio.models.convert.backbone import convert_backbone, load_backbone

__all__ = ["convert_audio_model", "convert_backbone", "load_backbone"]
