"""Where things lie under one data folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOCKET_PATH_MAX = 100
"""Unix socket paths end at 107 bytes on Linux (sun_path); some room is left for the file name."""


@dataclass(frozen=True)
class Layout:
    """The data folder of an embedded server. Everything it owns lies below `root`, but sockets of too long a path."""

    root: Path
    sockets: Path
    """Folder of the Unix sockets, mode 0700."""

    @classmethod
    def at(cls, root: Path) -> Layout:
        """Make the folders (mode 0700) and return their places."""
        root = root.resolve()
        sockets = root / "run"
        if len(os.fsencode(sockets)) > SOCKET_PATH_MAX - len("/signer.sock"):
            sockets = Path(tempfile.gettempdir()) / f"assay-{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}"
        layout = cls(root, sockets)
        for folder in (root, layout.run, sockets, layout.blobs, layout.uploads, layout.work, layout.signer, layout.pki):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        return layout

    @property
    def database_url(self) -> str:
        """SQLAlchemy address of the embedded database."""
        return f"sqlite:///{self.root / 'assay.sqlite'}"

    @property
    def run(self) -> Path:
        """Lock, isolation state and other files of the running server."""
        return self.root / "run"

    @property
    def blobs(self) -> Path:
        """Content-addressed bytes."""
        return self.root / "blobs"

    @property
    def uploads(self) -> Path:
        """Part files of uploads."""
        return self.root / "uploads"

    @property
    def work(self) -> Path:
        """The worker's materialised inputs."""
        return self.root / "work"

    @property
    def signer(self) -> Path:
        """The signer's own folder: key, registrations, sealed reports."""
        return self.root / "signer"

    @property
    def pki(self) -> Path:
        """Certificates of the development CA."""
        return self.root / "pki"

    @property
    def config(self) -> Path:
        """The configuration that the child processes read."""
        return self.root / "server.toml"

    @property
    def client_config(self) -> Path:
        """What `assay` needs to talk to this server."""
        return self.root / "client.json"

    def client_config_of(self, name: str) -> Path:
        """What `assay` needs to talk to this server as a further principal."""
        return self.root / "clients" / f"{name}.json"

    @property
    def log_key(self) -> Path:
        """The private key of the transparency log."""
        return self.signer / "log.key.pem"

    @property
    def root_key(self) -> Path:
        """The key that may change the trust root; a real operator keeps several of them elsewhere."""
        return self.pki / "root.key.pem"

    @property
    def trust(self) -> Path:
        """Folder of the trust root's versions."""
        return self.root / "trust"

    @property
    def signing_key(self) -> Path:
        """The signer's private key; its public half lies beside it as report.pub.pem."""
        return self.signer / "report.key.pem"
