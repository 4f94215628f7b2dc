from drawn_mouth import grin_picture, grinning
from tiny_pipeline import pipeline, portrait, voice, wan_pipeline

__all__ = ["grin_picture", "grinning", "pipeline", "portrait", "voice", "wan_pipeline"]
