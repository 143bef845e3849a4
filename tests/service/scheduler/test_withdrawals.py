"""An operator's command takes a report back; scheduler and signer see to it that the log says so, once."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from service.main import cli, config
from service.scheduler.errors import SignerUnavailable
from service.store.engine import Store
from service.store.listings import reports_of
from service.store.tables_around import access_log
from tests.service.main.test_config import server
from tests.service.scheduler.test_scheduler import Clock, FakeSigner, debts, signing, sweep
from tests.service.store.planting import finished, leased, new_store, registered


def test_a_report_is_taken_back_once_and_its_readers_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, signer, clock = new_store(tmp_path), FakeSigner(tmp_path), Clock()
    held = leased(store, registered(store))
    relay = signing(store, signer, clock)
    place = tmp_path / "server.toml"
    config.dump(server(tmp_path, database_url=f"sqlite:///{tmp_path}/assay.db"), place)

    def withdraw(reason: str, name: str = f"audits/{held.audit}") -> int:
        return cli.main(["withdraw", name, "--reason", reason, "--config", str(place)])

    assert withdraw("wrong_model") == 3
    assert "no signed report" in capsys.readouterr().err
    finished(store, held)
    sweep(relay)
    assert withdraw("Wrong model") == 3
    assert "at most 32" in capsys.readouterr().err
    assert withdraw("wrong_model", "report-7") == 3
    assert "audits/ID" in capsys.readouterr().err

    assert withdraw("wrong_model") == 0
    assert withdraw("wrong_model") == 0
    assert debts(store).count("withdraw") == 1
    assert withdraw("typo") == 3
    assert "reason wrong_model; that stays" in capsys.readouterr().err
    with store.read() as connection:
        logged = connection.execute(
            select(access_log.c.object).where(access_log.c.method.contains("withdraw"))
        ).scalars()
        assert logged.all() == [f"audits/{held.audit}"]

    signer.trouble = SignerUnavailable("away")
    sweep(relay)
    assert told(store, held.audit) == (False, "wrong_model")
    signer.trouble = None
    clock.now += 60
    sweep(relay)
    assert told(store, held.audit) == (True, "wrong_model")
    assert {"op": "withdraw", "audit": held.audit, "reason": "wrong_model"} in signer.asked
    assert "withdraw" not in debts(store)
    store.close()


def told(store: Store, audit_id: str) -> tuple[bool, str]:
    with store.read() as connection:
        (one,) = reports_of(connection, audit_id)
    return one.withdrawn_at is not None, one.withdrawal_reason
