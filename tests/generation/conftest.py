from tiny_pipeline import pipeline, portrait, voice, wan_pipeline

__all__ = ["pipeline", "portrait", "voice", "wan_pipeline"]
