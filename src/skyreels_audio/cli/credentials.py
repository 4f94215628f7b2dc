"""C2PA content credentials: a signed statement inside the MP4 that, and how, it was generated (extra ``[c2pa]``)."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyreels_audio import __version__
from skyreels_audio.cli.options import needs_extra

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
EDITED = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
ALGORITHMS = "ES256", "PS256", "ED25519", "ES384", "ES512", "PS384", "PS512"


@dataclass(frozen=True, eq=False)
class Credentials:
    """Whose signature videos get. Made by :meth:`load`, which has tried it."""

    key: bytes
    certificates: bytes
    algorithm: str

    @classmethod
    def load(cls, key: Path, certificates: Path) -> "Credentials":
        """Read a private key (PEM, PKCS#8) and its certificate chain (PEM, the signer's first); try a signature.

        Raises InputError if they do not make one, or c2pa-python is not installed.
        """
        from skyreels_audio.media import InputError
        from skyreels_audio.media.files import existing_file

        with needs_extra("c2pa"):
            from c2pa import C2paError
        pems = existing_file(key).read_bytes(), existing_file(certificates).read_bytes()
        picture = _one_pixel()
        reason: object = None
        for algorithm in ALGORITHMS:  # the key's own is the one that works
            try:
                credentials = cls(*pems, algorithm)
                credentials._sign("image/png", io.BytesIO(picture), io.BytesIO(), "trial", GENERATED)
                return credentials
            except C2paError as error:
                reason = reason or error
        raise InputError(f"--sign-key {key} and --sign-cert {certificates} make no valid signature ({reason}).")

    def sign(self, video: Path, edited: bool) -> None:
        """Put a signed statement into an MP4 file: generated, or edited by a generative model."""
        from skyreels_audio.media.files import replacing, writing

        with writing(video), replacing(video) as partial, video.open("rb") as source, partial.open("w+b") as target:
            self._sign("video/mp4", source, target, video.name, EDITED if edited else GENERATED)

    def _sign(self, kind: str, source: Any, target: Any, title: str, source_type: str) -> None:
        from c2pa import Builder, C2paSignerInfo, C2paSigningAlg, Signer

        action = {"action": "c2pa.created", "digitalSourceType": source_type}
        manifest = {
            "claim_generator_info": [{"name": "skyreels-audio", "version": __version__}],
            "title": title,
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
        }
        # No timestamp authority: that would need a network.
        signer = C2paSignerInfo(getattr(C2paSigningAlg, self.algorithm), self.certificates, self.key, None)
        Builder(json.dumps(manifest)).sign(Signer.from_info(signer), kind, source, target)


def _one_pixel() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    return file.getvalue()
