"""Which store holds the blobs is one decision, and the bucket's keys are in no file but their own."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from service.blobs import BlobDamaged, BlobMissing, BlobsAway, LocalBlobs, MemoryBlobs
from service.blobs.s3 import S3Blobs
from service.main import buckets, config
from service.main.cli import main
from service.main.journal import stored_by
from service.main.status import status_of
from tests.service.main.test_config import server
from tests.service.plants.s3 import WHO, served

GOOD = f"[default]\naws_access_key_id = {WHO.access_key}\naws_secret_access_key = {WHO.secret_key}\n"
DATA = b"weights"
DIGEST = hashlib.sha256(DATA).hexdigest()


def keys(folder: Path, text: str = GOOD, mode: int = 0o600) -> Path:
    path = folder / "keys"
    path.touch(mode=0o600)
    path.write_text(text)
    path.chmod(mode)
    return path


def in_bucket(folder: Path, endpoint: str = "https://s3.example", **more: object) -> config.Server:
    told = {"endpoint": endpoint, "bucket": "bucket", "region": WHO.region, "credentials": str(folder / "keys")}
    return server(folder, s3={**told, **more})


def test_blobs_are_in_the_folder_unless_a_bucket_is_named(tmp_path: Path) -> None:
    keys(tmp_path)
    assert isinstance(buckets.open_blobs(server(tmp_path)), LocalBlobs)
    assert buckets.open_bucket(server(tmp_path), "api") is None
    assert isinstance(buckets.open_blobs(in_bucket(tmp_path), "api"), S3Blobs)


def test_roles_share_a_bucket_and_no_cache(tmp_path: Path) -> None:
    with served() as bucket:
        asked = in_bucket(tmp_path, bucket.address, prefix="assay/")
        keys(tmp_path)
        first, second = buckets.open_blobs(asked, "api"), buckets.open_blobs(asked, "worker")
        first.put(DATA, DIGEST)
        with second.open(DIGEST) as file:
            assert file.read() == DATA
        assert list(second.digests())[1:] == [DIGEST]
        assert list(bucket.objects) == [f"assay/sha256/{DIGEST[:2]}/{DIGEST[2:4]}/{DIGEST}"]
    assert sorted(path.name for path in (tmp_path / "blobs").iterdir()) == ["api", "worker"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_keys_that_others_may_read_are_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(config.ConfigError, match="chmod 600"):
        buckets.read_credentials(keys(tmp_path, mode=mode), "r")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[default]\n",
        "[other]\n" + GOOD.partition("\n")[2],
        GOOD.replace("aws_secret_access_key = planted secret\n", ""),
        GOOD.replace("planted secret", ""),
        GOOD + "aws_session_token = passes\n",
        GOOD + GOOD,
        "no file of this form",
        GOOD + "#" * buckets.CREDENTIALS_MAX,
    ],
)
def test_a_file_without_a_lasting_pair_of_keys_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    with pytest.raises(config.ConfigError) as refused:
        buckets.read_credentials(keys(tmp_path, text), "r")
    assert "s3.credentials" in str(refused.value)
    assert "aws_access_key_id" in str(refused.value)
    assert "planted secret" not in str(refused.value)


def test_no_file_of_keys_is_named(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="keys cannot be read"):
        buckets.open_blobs(in_bucket(tmp_path), "api")


def test_a_development_server_names_keys_that_others_may_read_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the handlers of this process stay
    path = keys(tmp_path, mode=0o644)
    settings = tmp_path / "settings.toml"
    settings.write_text(f'[s3]\nendpoint = "https://s3.example"\nbucket = "bucket"\ncredentials = "{path}"\n')
    assert main(["dev", "--data", str(tmp_path / "data"), "--no-redis", "--settings", str(settings)]) == 3
    assert "s3.credentials" in capsys.readouterr().err
    assert not (tmp_path / "data" / "logs").exists()


def test_percent_signs_in_keys_are_themselves(tmp_path: Path) -> None:
    found = buckets.read_credentials(keys(tmp_path, GOOD.replace("planted secret", "a%b%(c)s")), "r")
    assert found.secret_key == "a%b%(c)s"


def test_the_secret_is_in_no_configuration_and_in_no_repr(tmp_path: Path) -> None:
    asked = in_bucket(tmp_path, prefix="assay/", ca="/etc/ca.pem")
    keys(tmp_path)
    config.dump(asked, tmp_path / "server.toml")
    assert config.load(tmp_path / "server.toml") == asked
    assert WHO.secret_key not in (tmp_path / "server.toml").read_text()
    assert asked.s3 is not None
    assert WHO.secret_key not in repr(buckets.settings_of(asked.s3))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"endpoint": "http://s3.example"}, "https"),
        ({"endpoint": "https://s3.example/path"}, "without path"),
        ({"endpoint": "https://me:secret@s3.example"}, "without path or user"),
        ({"bucket": "Bucket"}, "bucket"),
        ({"bucket": "a/b"}, "bucket"),
        ({"prefix": "assay"}, "prefix"),
        ({"prefix": "../"}, "prefix"),
        ({"region": "a b"}, "region"),
        ({"secret_key": "x"}, "secret_key"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
def test_what_is_no_bucket_stops_the_start(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        in_bucket(tmp_path, **changes)  # type: ignore[arg-type]


def test_the_status_names_a_bucket_that_is_away_and_writes_nothing(tmp_path: Path) -> None:
    with served() as bucket:
        keys(tmp_path)
        asked = in_bucket(tmp_path, bucket.address)
        assert buckets.problem_of(asked) is None
        assert bucket.objects == {}
        bucket.faults = [("HEAD", "500")] * 4
        assert "away" in str(buckets.problem_of(asked))
    assert any("the bucket of the blobs" in one for one in status_of(asked)["problems"])
    assert not (tmp_path / "blobs").exists()
    assert buckets.problem_of(server(tmp_path)) is None


def test_nothing_is_leased_while_the_store_takes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blobs = MemoryBlobs()
    reaches = buckets.Reaches(blobs)

    def away() -> None:
        raise BlobsAway("the object store is away")

    with caplog.at_level(logging.INFO, logger="assay.blobs"):
        assert reaches()
        with monkeypatch.context() as patched:
            patched.setattr(blobs, "probe", away)
            assert [reaches(), reaches()] == [False, False]
        assert reaches()
    assert [one.levelname for one in caplog.records] == ["ERROR", "INFO"], "told when it changes, and not at each look"


def test_a_check_of_the_journal_tells_wrong_bytes_from_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = MemoryBlobs()
    blobs.put(DATA, DIGEST)
    assert stored_by(blobs)(DIGEST) is True
    assert stored_by(blobs)("0" * 64) is False
    for error, told in ((BlobDamaged("x"), False), (BlobMissing("x"), False)):

        def fails(_digest: str, why: Exception = error) -> None:
            raise why

        with monkeypatch.context() as patched:
            patched.setattr(blobs, "open", fails)
            assert stored_by(blobs)(DIGEST) is told

    def away(_digest: str) -> None:
        raise BlobsAway("x")

    monkeypatch.setattr(blobs, "open", away)
    with pytest.raises(BlobsAway):
        stored_by(blobs)(DIGEST)


def test_sections_of_a_file_are_laid_over_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[times]\npoll_s = 0.2\n[limits]\nwatchers = 3\n[webhooks]\nallow_loopback_receivers = true\n")
    before = server(tmp_path, times={"misfire_s": 61})
    after = config.overlaid(before, path)
    assert (after.times.poll_s, after.times.misfire_s, after.limits.watchers) == (0.2, 61, 3)
    assert after.webhooks.allow_loopback_receivers
    assert (
        after.model_copy(update={"times": before.times, "limits": before.limits, "webhooks": before.webhooks}) == before
    )
    for text, named in (
        ("slots = 2\n", "slots"),
        ('[tls]\nca = "x"\n', "tls"),
        ("[times]\npol_s = 1\n", "pol_s"),
        ("[nonsense]\n", "nonsense"),
        ("[times]\nmisfire_s = 59\n", "misfire_s"),
        ("[", "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(config.ConfigError) as refused:
            config.overlaid(before, path)
        assert named in str(refused.value)
        assert str(path) in str(refused.value)
