"""Content credentials: a reader of C2PA finds the statement, and the video is the same."""

import datetime
import json
from pathlib import Path

import numpy as np
import pytest

from skyreels_audio.cli.credentials import EDITED, Credentials
from skyreels_audio.media import InputError, VideoWriter, read_video

c2pa = pytest.importorskip("c2pa")
pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A key, and the certificates of its owner and of the authority, made up."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def certificate(subject: str, public_key, issuer_key, authority: bool) -> bytes:
        names = [
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n), x509.NameAttribute(NameOID.ORGANIZATION_NAME, n)])
            for n in ("authority", subject)
        ]
        now = datetime.datetime.now(datetime.UTC)
        uses = x509.KeyUsage(not authority, *[False] * 4, authority, *[False] * 3)  # pyright: ignore[reportCallIssue]
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = (
            x509.CertificateBuilder(*names, public_key, x509.random_serial_number())  # pyright: ignore[reportCallIssue]
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(authority, None), True)
            .add_extension(uses, True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), False)
            .add_extension(identifier, False)
        )
        if not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    folder = tmp_path_factory.mktemp("pems")
    authority, owner = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = [certificate("owner", owner.public_key(), authority, False)]
    chain += [certificate("authority", authority.public_key(), authority, True)]
    (folder / "cert.pem").write_bytes(b"".join(chain))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(owner.private_bytes(serialization.Encoding.PEM, *form))
    return folder / "key.pem", folder / "cert.pem"


def test_a_signed_video_says_how_it_was_made_and_is_the_same(pems: tuple[Path, Path], tmp_path: Path) -> None:
    video = tmp_path / "talk.mp4"
    with VideoWriter(video, 32, 32, 25) as writer:
        for level in range(5):
            writer.write(np.full((32, 32, 3), 40 * level, np.uint8))
    before = list(read_video(video))
    Credentials.load(*pems).sign(video, edited=True)
    assert all(np.array_equal(a, b) for a, b in zip(before, read_video(video), strict=True))
    with video.open("rb") as file:
        manifests = json.loads(c2pa.Reader("video/mp4", file).json())
    (manifest,) = manifests["manifests"].values()
    (actions,) = [each["data"] for each in manifest["assertions"] if each["label"].startswith("c2pa.actions")]
    assert actions["actions"][0]["digitalSourceType"] == EDITED
    assert manifest["signature_info"]["common_name"] == "owner"
    failures = {status["code"] for status in manifests["validation_status"]}
    assert failures == {"signingCredential.untrusted"}  # nobody trusts a made-up authority; all else is right
    assert [path.name for path in tmp_path.iterdir()] == ["talk.mp4"]


def test_a_key_that_makes_no_signature_is_told_before_anything_is_made(pems: tuple[Path, Path]) -> None:
    key, certificates = pems
    with pytest.raises(InputError, match="make no valid signature"):
        Credentials.load(certificates, certificates)
    with pytest.raises(InputError, match="does not exist"):
        Credentials.load(key, key.with_name("none.pem"))
