"""Notes, vkeys and checkpoints: published vectors, and every form that another reader could take differently."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from assay.errors import Malformed, Wrong
from assay.tlog import notes, registration, tree
from assay.tlog.notes import Checkpoint, Vkey
from assay.tlog.tree import MemoryTree

from tests.client.tlog.planted import ORIGIN, OTHER, PRIVATE, VECTORS

WYCHEPROOF = Path(os.environ.get("ASSAY_DATA", Path(__file__).parents[3] / "../shared/data")) / "vectors/wycheproof"
KEY = notes.vkey_of(PRIVATE, ORIGIN)
HEAD = Checkpoint(ORIGIN, 7, bytes(range(32)))
NOTE = notes.sign(HEAD.text, PRIVATE, ORIGIN)


def line(name: str, content: bytes) -> bytes:
    return f"\N{EM DASH} {name} {base64.b64encode(content).decode()}\n".encode()


def test_vector_t6_verifies_a_published_note() -> None:
    vector = VECTORS["T6"]
    key = notes.parse_vkey(vector["vkey"])
    assert key.text == vector["vkey"]
    data = f"{vector['text']}\n\N{EM DASH} {key.name} {vector['signature']}\n".encode()
    assert notes.verify(notes.read(data), [key]) == (key,)
    with pytest.raises(Wrong, match="does not verify"):
        notes.verify(notes.read(data.replace(b"example message", b"Example message")), [key])


def test_vector_t7_leaf_root_note_seed_and_tag() -> None:
    vector = VECTORS["T7"]
    entry = vector["entry"].encode()
    built = MemoryTree([*(bytes.fromhex(one) for one in VECTORS["T4"]["entries"][:7]), entry])
    leaf, root = tree.leaf_hash(entry), tree.root(built.node, 8)
    assert (leaf.hex(), root.hex()) == (vector["leaf"], vector["root"])
    assert notes.vkey_of(PRIVATE, ORIGIN).text == vector["vkey"]
    note = notes.sign(Checkpoint(ORIGIN, 8, root).text, PRIVATE, ORIGIN)
    assert note.decode().split(" ")[-1] == vector["signature"] + "\n"
    assert notes.open_checkpoint(note, [notes.parse_vkey(vector["vkey"])]) == Checkpoint(ORIGIN, 8, root)
    assert registration.derive_seed(leaf, root) == vector["seed"]
    assert registration.tag(vector["salt"], VECTORS["T1"]["sha256"]) == vector["tag"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        f"{ORIGIN}+1132529b",
        KEY.text.replace("1132529b", "1132529c"),
        KEY.text.replace(ORIGIN, "log.other.example"),
        KEY.text.replace(ORIGIN, "log assay"),
        KEY.text + "=",
        KEY.text[:-1],
        KEY.text + " ",
        f"{ORIGIN}+00000000+" + base64.b64encode(b"\x02" + bytes(32)).decode(),
        "x" * 300 + KEY.text,
    ],
)
def test_a_vkey_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        notes.parse_vkey(text)


def test_lines_of_unknown_keys_are_ignored_and_sixteen_are_accepted() -> None:
    witnesses = [Vkey(f"witness{index}.example", notes.vkey_of(OTHER, "w").public) for index in range(16)]
    lines = b"".join(line(witness.name, witness.id + bytes(64)) for witness in witnesses)
    same_name = line(ORIGIN, b"\x00\x00\x00\x00" + bytes(64))
    same_id = line("log.other.example", KEY.id + bytes(64))
    assert notes.open_checkpoint(NOTE + lines + same_name + same_id, [KEY]) == HEAD
    with pytest.raises(Wrong, match="witness3"):
        notes.open_checkpoint(NOTE + lines, [KEY, witnesses[3]])


def test_a_note_whose_known_key_fails_is_rejected_although_another_line_is_good() -> None:
    with pytest.raises(Wrong, match="does not verify"):
        notes.open_checkpoint(NOTE + line(ORIGIN, KEY.id + bytes(64)), [KEY])
    with pytest.raises(Wrong, match="does not verify"):
        notes.open_checkpoint(NOTE + line(ORIGIN, KEY.id + bytes(63)), [KEY])


def test_another_trusted_key_cannot_speak_for_the_log() -> None:
    witness = notes.vkey_of(OTHER, "witness.example")
    with pytest.raises(Wrong, match="no trusted key of the log"):
        notes.open_checkpoint(notes.sign(HEAD.text, OTHER, witness.name), [KEY, witness])
    with pytest.raises(Wrong, match="no trusted log key"):
        notes.open_checkpoint(NOTE, [])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        HEAD.text.encode(),
        HEAD.text.encode() + b"\n",
        NOTE[:-1],
        NOTE + b"\n",
        NOTE + b"junk\n",
        NOTE.replace(b"\xe2\x80\x94", b"-"),
        NOTE.replace(b"\n", b"\r\n"),
        NOTE + line("two words", bytes(68)),
        NOTE + line("a+b", bytes(68)),
        NOTE + line("short", bytes(4)),
        NOTE[:-2] + b"\n",
        b"\xff" + NOTE,
        NOTE + line("witness.example", bytes(70_000)),
    ],
)
def test_a_note_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        notes.read_checkpoint(data)


@pytest.mark.parametrize(
    "text",
    [
        "log.assay.example\n07\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log.assay.example\n-7\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log.assay.example\n9007199254740992\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log.assay.example\n7\n" + base64.b64encode(bytes(31)).decode() + "\n",
        "log.assay.example\n7\n" + base64.urlsafe_b64encode(b"\xff" * 32).decode() + "\n",
        "log.assay.example\n7\n" + base64.b64encode(bytes(32)).decode() + "\nextension\n",
        "log assay\n7\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log.assay.example\n7\n",
    ],
)
def test_a_checkpoint_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        notes.read_checkpoint(notes.sign(text, PRIVATE, ORIGIN))


@pytest.mark.skipif(not WYCHEPROOF.is_dir(), reason="no Wycheproof vectors: set ASSAY_DATA to the folder of vectors/")
def test_wycheproof_ed25519() -> None:
    seen = 0
    for group in json.loads((WYCHEPROOF / "ed25519_test.json").read_bytes())["testGroups"]:
        key = Vkey(ORIGIN, bytes.fromhex(group["publicKey"]["pk"]))
        for case in group["tests"]:
            found = notes._verifies(key, bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))
            assert found == (case["result"] == "valid"), case["tcId"]
            seen += 1
    assert seen == 151
