"""Items that checks hand out: read back by the client, in hash order, the same sample in every audit, never an id."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest
from assay.compare import items as client
from assay.compare.influence import influence

from checks.items import MEDIA_TYPE, Roll, document, file_name, roll

IDS = [f"item-{number}" for number in range(50)]
VALUES = [float(number % 3 > 0) for number in range(50)]


def made(**changed: Any) -> bytes:
    told: dict[str, Any] = {
        "check": "probe", "metric": "accuracy", "labels": {"layer": "5"}, "items": roll(IDS), "values": VALUES,
        "step": "1",
    }  # fmt: skip
    return document(**(told | changed))


def test_the_client_reads_what_a_check_writes() -> None:
    clusters = [number // 4 for number in range(50)]
    ranks = list(range(50, 100))
    file = made() + made(
        metric="auroc", items=roll(IDS, clusters), values=ranks, reducer="auc", targets=[n % 2 for n in range(50)]
    )
    shares, areas = client.read_all(file)
    order, digest = client.in_order(IDS)
    assert (shares.ids_sha256, areas.ids_sha256) == (digest, digest)
    assert shares.scores == tuple(int(VALUES[at]) for at in order)
    assert areas.scores == tuple(ranks[at] for at in order)
    assert areas.targets == tuple(at % 2 for at in order)
    assert areas.clusters is not None
    assert len({(told, clusters[at]) for told, at in zip(areas.clusters, order, strict=True)}) == 13
    assert influence(shares).theta == pytest.approx(sum(VALUES) / 50)
    assert (client.MEDIA_TYPE, client.FORMAT) == (MEDIA_TYPE, "assay-items/v1")
    assert client.write(shares) + b"\n" == made()


def test_the_readers_name_of_the_file() -> None:
    from assay.compare.metrics import file_names

    assert file_name("accuracy") in file_names("accuracy")


def test_sample_is_drawn_by_hash_and_not_by_place() -> None:
    whole, some = roll(IDS), roll(IDS, most=20)
    assert some.places == whole.places[:20]
    assert len(roll(IDS, most=1000)) == 50
    shuffled = random.Random(3).sample(IDS, 50)
    other = roll(shuffled, most=20)
    assert other.ids_sha256 == some.ids_sha256
    assert [shuffled[at] for at in other.places] == [IDS[at] for at in some.places]
    kept = "\n".join(IDS[at] for at in some.places)
    assert some.ids_sha256 == hashlib.sha256(kept.encode()).hexdigest()


def test_items_that_all_stand_alone_have_no_clusters() -> None:
    assert roll(IDS, list(range(50))).clusters is None
    assert roll(IDS, [0] * 50).clusters == (0,) * 50
    assert roll(["a", "b", "c"], ["x", "y", "x"]).clusters is not None


def test_no_id_stands_in_the_document() -> None:
    secret = [f"the-capital-of-{number}" for number in range(50)]
    assert b"capital" not in made(items=roll(secret, [f"capital-{n // 2}" for n in range(50)]))


@pytest.mark.parametrize(
    ("ids", "clusters", "most", "words"),
    [
        ([], None, None, "its own"),
        (["a", "a"], None, None, "its own"),
        (["a\nb"], None, None, "one line"),
        (["a", "b"], [1], None, "1 clusters for 2 items"),
        (["a", "b"], None, 0, "roll of 0"),
    ],
)
def test_a_roll_that_pairs_nothing_is_refused(
    ids: list[str], clusters: list[int] | None, most: int | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        roll(ids, clusters, most)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"metric": "two words"}, "alphabet"),
        ({"labels": {"layer": ""}}, "alphabet"),
        ({"labels": {"": "5"}}, "alphabet"),
        ({"step": "2"}, "power of ten"),
        ({"step": "0.10"}, "power of ten"),
        ({"step": "1e-3"}, "power of ten"),
        ({"reducer": "auc"}, "has targets"),
        ({"targets": [1] * 50}, "no other has"),
        ({"reducer": "auc", "targets": [1] * 50}, "both occur"),
        ({"values": [float("nan")] * 50}, "not a finite number"),
        ({"values": [float("inf")] * 50}, "not a finite number"),
        ({"values": [1e300] * 50}, "steps of 1"),
    ],
)
def test_a_document_that_no_client_would_read_is_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        made(**changed)


def test_too_few_values_are_refused() -> None:
    for changed in ({"values": VALUES[:9]}, {"reducer": "auc", "targets": [0, 1]}):
        with pytest.raises(ValueError, match="for 50 items"):
            made(**changed)


def test_values_are_told_in_whole_steps() -> None:
    three = Roll(places=(0, 1, 2), ids_sha256="0" * 64, clusters=None, of=3)
    (told,) = client.read_all(made(items=three, values=[0.25, 0.5, 1.0], step="0.01"))
    assert told.scores == (25, 50, 100)
    for step in ("1", "10", "0.1", "0.000000000000000001"):
        assert client.read_all(made(values=[0.0] * 50, step=step))[0].step == step
