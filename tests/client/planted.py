"""Certificates and model directories made on the spot."""

from __future__ import annotations

import datetime
import ipaddress
import json
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def certificates(folder: Path) -> dict[str, Path]:
    """Write one self-signed authority that is server and client at once."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fake")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files = {"ca": pem, "certificate": pem, "key": private}
    for label, data in files.items():
        (folder / f"{label}.pem").write_bytes(data)
    return {label: folder / f"{label}.pem" for label in files}


def write_model(folder: Path, *, weights: int = 64, **config: Any) -> Path:
    """Write a tiny model directory: real headers, no knowledge."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "rate": 1e-05, **config}))
    header = json.dumps({"w": {"dtype": "U8", "shape": [weights], "data_offsets": [0, weights]}}).encode()
    body = bytes(i * 7 % 251 for i in range(1000)) * (weights // 1000 + 1)
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + body[:weights])
    return folder
