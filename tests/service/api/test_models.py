"""Manifests become models; what may not be in one is named, and nothing is stored."""

from __future__ import annotations

from typing import Any

import pytest
from assay.api.v1 import models_pb2, models_pb2_grpc
from sqlalchemy import func, select

from service.store.tables import model
from tests.service.api.conftest import House, digest_of, manifest_of, told

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "README.md": b""}


def _count(house: House) -> int:
    with house.store.read() as connection:
        return int(connection.execute(select(func.count()).select_from(model)).scalar_one())


async def _create(house: House, manifest: bytes, principal: str = "ada") -> Any:
    await house.send(manifest, principal)
    stub = house.stub(models_pb2_grpc.ModelsStub, principal)
    return stub.CreateModel(models_pb2.CreateModelRequest(manifest_sha256=digest_of(manifest).sha256))


async def test_model_is_made_once_and_read_back(house: House) -> None:
    for data in FILES.values():
        await house.send(data)
    manifest = manifest_of(FILES)
    made = await (await _create(house, manifest))
    assert made.name == f"models/{digest_of(manifest).sha256}"
    assert [(file.path, file.size) for file in made.files] == [
        ("README.md", 0),
        ("config.json", 2),
        ("model.safetensors", 7),
    ]
    assert made.bytes == 9
    assert await (await _create(house, manifest)) == made
    assert await house.stub(models_pb2_grpc.ModelsStub).GetModel(models_pb2.GetModelRequest(name=made.name)) == made
    assert _count(house) == 1


async def test_a_manifest_whose_bytes_were_lost_is_asked_for_again(house: House) -> None:
    for data in FILES.values():
        await house.send(data)
    manifest = manifest_of(FILES)
    call = await _create(house, manifest)
    house.blobs.delete(digest_of(manifest).sha256)
    assert (await told(call)).reason == "MISSING_BLOBS"
    await (await _create(house, manifest))
    assert _count(house) == 1


async def test_missing_files_are_named_with_their_size(house: House) -> None:
    await house.send(FILES["config.json"])
    answer = await told(await _create(house, manifest_of(FILES)))
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "MISSING_BLOBS")
    weights = digest_of(FILES["model.safetensors"])
    violations = answer.details["PreconditionFailure"].violations
    assert [(one.type, one.subject) for one in violations] == [("MISSING", f"blobs/sha256/{weights.sha256}/7")]
    assert _count(house) == 0


async def test_files_of_another_tenant_do_not_count(house: House) -> None:
    for data in FILES.values():
        await house.send(data, "ada")
    assert (await told(await _create(house, manifest_of(FILES), "ben"))).metadata["violation_count"] == "2"


async def test_manifest_that_was_not_sent_is_missing_even_if_another_tenant_sent_it(house: House) -> None:
    manifest = manifest_of(FILES)
    await house.send(manifest, "ada")
    stub = house.stub(models_pb2_grpc.ModelsStub, "ben")
    answer = await told(stub.CreateModel(models_pb2.CreateModelRequest(manifest_sha256=digest_of(manifest).sha256)))
    assert answer.reason == "MISSING_BLOBS"


async def test_thousand_missing_blobs_keep_their_code(house: House) -> None:
    files = {f"{number:04}.safetensors": bytes([number % 256, number // 256]) for number in range(1000)}
    answer = await told(await _create(house, manifest_of({"config.json": b"{}", **files})))
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "MISSING_BLOBS")
    assert answer.metadata["violation_count"] == "1001"
    assert len(answer.details["PreconditionFailure"].violations) == 40


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "last.ckpt", "model.PKL"])
async def test_pickle_is_refused_by_name_with_the_way_out(house: House, name: str) -> None:
    answer = await told(await _create(house, manifest_of({**FILES, name: b"\x80\x04"})))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "BAD_MANIFEST")
    assert name in answer.message
    assert "convert the weights to safetensors" in answer.message
    assert _count(house) == 0


async def test_every_bad_entry_of_a_manifest_is_named(house: House) -> None:
    files = {"weights.gguf": b"x", "run.py": b"x", "sub/config.json": b"x"}
    answer = await told(await _create(house, manifest_of(files)))
    told_of = " ".join(one.description for one in answer.details["BadRequest"].field_violations)
    for word in ("weights.gguf", "run.py", "sub/config.json", "config.json is missing", "no .safetensors"):
        assert word in told_of
    assert answer.metadata["violation_count"] == "5"


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b'{"files":[],"format":"assay-manifest/v1"}',
        b" " + manifest_of(FILES),
        manifest_of(FILES).replace(b"README.md", b"../me.md"),
        manifest_of(FILES).replace(b"README.md", b"/etc/pwd!"),
        manifest_of(FILES).replace(b'"size":7', b'"size":7.0'),
        manifest_of({**FILES, "readme.md": b"clash"}),
        manifest_of({f"{number:05}.safetensors": b"" for number in range(4097)}),
    ],
    ids=["nothing", "list", "empty", "not-canonical", "dots", "absolute", "fraction", "case", "too-many"],
)
async def test_bad_manifest_is_refused(house: House, manifest: bytes) -> None:
    answer = await told(await _create(house, manifest) if manifest else _empty(house))
    assert (answer.code, answer.reason) in {
        ("INVALID_ARGUMENT", "BAD_MANIFEST"),
        ("FAILED_PRECONDITION", "MISSING_BLOBS"),
    }
    assert (answer.reason == "MISSING_BLOBS") == (not manifest)
    assert _count(house) == 0


def _empty(house: House) -> Any:
    stub = house.stub(models_pb2_grpc.ModelsStub)
    return stub.CreateModel(models_pb2.CreateModelRequest(manifest_sha256=digest_of(b"").sha256))


async def test_oversized_config_is_refused_by_its_declared_size(house: House) -> None:
    manifest = manifest_of(FILES).replace(b'"size":2}', b'"size":99999999}')
    answer = await told(await _create(house, manifest))
    assert answer.reason == "BAD_MANIFEST"
    assert "99999999 bytes" in answer.message


async def test_foreign_and_absent_models_read_the_same(house: House) -> None:
    for data in FILES.values():
        await house.send(data)
    made = await (await _create(house, manifest_of(FILES)))
    stub = house.stub(models_pb2_grpc.ModelsStub, "ben")
    foreign = await told(stub.GetModel(models_pb2.GetModelRequest(name=made.name)))
    absent = await told(stub.GetModel(models_pb2.GetModelRequest(name=f"models/{'0' * 64}")))
    assert foreign.raw == absent.raw
    assert foreign.code == "PERMISSION_DENIED"
    assert (await told(stub.GetModel(models_pb2.GetModelRequest(name="models/x")))).reason == "BAD_RESOURCE_NAME"
    bad = models_pb2.CreateModelRequest(manifest_sha256="models/x")
    assert (await told(stub.CreateModel(bad))).reason == "BAD_DIGEST"


async def test_models_are_listed_in_pages_newest_first(house: House) -> None:
    names = []
    for number in range(5):
        files = {"config.json": b"{}", "model.safetensors": bytes([number])}
        for data in files.values():
            await house.send(data)
        names.append((await (await _create(house, manifest_of(files)))).name)
    stub = house.stub(models_pb2_grpc.ModelsStub)
    seen, token = [], ""
    while True:
        page = await stub.ListModels(models_pb2.ListModelsRequest(page_size=2, page_token=token))
        seen += [one.name for one in page.models]
        token = page.next_page_token
        if not token:
            break
    assert sorted(seen) == sorted(names)
    assert len(seen) == 5
    foreign = house.stub(models_pb2_grpc.ModelsStub, "ben")
    assert not (await foreign.ListModels(models_pb2.ListModelsRequest())).models
    first = await stub.ListModels(models_pb2.ListModelsRequest(page_size=2))
    stolen = models_pb2.ListModelsRequest(page_size=2, page_token=first.next_page_token)
    assert (await told(foreign.ListModels(stolen))).reason == "BAD_PAGE_TOKEN"
