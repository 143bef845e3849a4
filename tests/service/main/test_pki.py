from __future__ import annotations

from pathlib import Path

from cryptography import x509

from service.main import pki


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_client_certificate_names_its_principal_and_the_authority_signed_it(tmp_path: Path) -> None:
    pki.ensure(tmp_path, ("alice",), hosts=("audit.example", "10.0.0.7"))
    client, server, authority = (read(tmp_path / f"{name}.pem") for name in ("alice", "server", "ca"))
    names = client.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["assay:principal:alice"]
    hosts = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert hosts.get_values_for_type(x509.DNSName) == ["localhost", "audit.example"]
    assert [str(a) for a in hosts.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "10.0.0.7"]
    client.verify_directly_issued_by(authority)
    server.verify_directly_issued_by(authority)


def test_keys_are_private_and_a_second_call_keeps_them(tmp_path: Path) -> None:
    pki.ensure(tmp_path, ("alice",))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert all((tmp_path / f"{name}.key").stat().st_mode & 0o077 == 0 for name in ("ca", "server", "alice"))
    pki.ensure(tmp_path, ("alice",))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_further_principal_leaves_the_others_alone(tmp_path: Path) -> None:
    pki.ensure(tmp_path, ("alice",))
    alice = (tmp_path / "alice.pem").read_bytes()
    pki.ensure(tmp_path, ("alice", "bob"))
    assert (tmp_path / "alice.pem").read_bytes() == alice
    read(tmp_path / "bob.pem").verify_directly_issued_by(read(tmp_path / "ca.pem"))


def test_a_lost_authority_makes_every_certificate_anew(tmp_path: Path) -> None:
    pki.ensure(tmp_path, ("alice",))
    (tmp_path / "ca.key").unlink()
    pki.ensure(tmp_path, ("alice",))
    read(tmp_path / "alice.pem").verify_directly_issued_by(read(tmp_path / "ca.pem"))
