"""API keys at rest: secrets, rotation, revocation, expiry; and the command that makes them."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result
from worldstereo_client import cli
from worldstereo_client.exit_codes import ExitCode

from deployments.errors import AuthenticationError
from deployments.key_store import KeyStore
from deployments.keys import ApiKey, Caller
from deployments.tables import api_keys, connect, sqlite_url
from worldstereo.errors import ParameterError


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path: Path, clock: Clock) -> Iterator[KeyStore]:
    store = KeyStore(sqlite_url(tmp_path / "data" / "store.sqlite"), clock)
    yield store
    store.close()


def test_the_store_has_the_hash_alone(keys: KeyStore, tmp_path: Path) -> None:
    key, text = keys.create("studio", ["write", "read"], max_queued=5, max_priority=3)
    assert re.fullmatch(rf"ws_{key.id}_[A-Za-z0-9_-]{{43}}", text)
    secret = text.split("_", 2)[2]
    assert key.secret_sha256 == hashlib.sha256(secret.encode()).hexdigest()
    engine = connect(sqlite_url(tmp_path / "data" / "store.sqlite"))
    with engine.begin() as connection:
        stored = repr(connection.execute(select(api_keys)).all())
    engine.dispose()
    assert secret not in stored
    caller = keys.caller_of(text)
    assert caller == Caller(key.id, frozenset({"read", "write"}), max_queued=5, max_priority=3)


def test_two_keys_share_nothing(keys: KeyStore) -> None:
    (one, text_one), (two, text_two) = keys.create("a", ["read"]), keys.create("b", ["read"])
    assert one.id != two.id
    crossed = f"ws_{one.id}_{text_two.split('_', 2)[2]}"
    with pytest.raises(AuthenticationError):
        keys.caller_of(crossed)
    assert keys.caller_of(text_one).owner == one.id
    assert [key.name for key in keys.all_keys()] == ["a", "b"]


@pytest.mark.parametrize("change", ["", "ws_", "x", "last", "case", "spaced", "none", "ü"])
def test_what_is_no_key_opens_nothing(keys: KeyStore, change: str) -> None:
    _, text = keys.create("a", ["read"])
    wrong = {
        "": "",
        "ws_": "ws_",
        "x": text + "x",
        "last": text[:-1] + ("A" if text[-1] != "A" else "B"),
        "case": text.swapcase(),
        "spaced": text[:20] + " " + text[20:],
        "none": "ws_0000000000000000_" + text.split("_", 2)[2],
        "ü": text[:-1] + "ü",
    }[change]
    with pytest.raises(AuthenticationError) as caught:
        keys.caller_of(wrong)
    # What was sent may be nearly right: it is in no message.
    assert len(wrong) < 10 or wrong not in str(caught.value)


def test_every_secret_is_compared_in_constant_time(
    keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, text = keys.create("a", ["read"])
    compared: list[tuple[str, str]] = []

    def compare(a: str, b: str) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr("deployments.keys.hmac.compare_digest", compare)
    keys.caller_of(text)
    for wrong in ("nothing", f"ws_{key.id}_{'A' * 43}", f"ws_{'0' * 16}_{'A' * 43}"):
        with pytest.raises(AuthenticationError):
            keys.caller_of(wrong)
    assert len(compared) == 2 * 4


def test_a_rotated_key_opens_with_both_secrets_for_its_grace(keys: KeyStore, clock: Clock) -> None:
    key, old = keys.create("a", ["read"])
    again, new = keys.rotate(key.id, grace_s=60)
    assert again.id == key.id
    assert keys.caller_of(old) == keys.caller_of(new)
    clock.now += 59.9
    keys.caller_of(old)
    clock.now += 0.2
    with pytest.raises(AuthenticationError):
        keys.caller_of(old)
    assert keys.caller_of(new).owner == key.id
    _, newest = keys.rotate(key.id, grace_s=0)
    with pytest.raises(AuthenticationError):
        keys.caller_of(new)
    keys.caller_of(newest)


def test_revoked_and_expired_keys_open_nothing(keys: KeyStore, clock: Clock) -> None:
    brief, brief_text = keys.create("brief", ["read"], expires_in_s=10)
    assert keys.has_usable()
    keys.caller_of(brief_text)
    clock.now += 10
    with pytest.raises(AuthenticationError):
        keys.caller_of(brief_text)
    with pytest.raises(ParameterError, match="past its time"):
        keys.rotate(brief.id, 60)
    other, other_text = keys.create("other", ["admin"])
    _, rotated = keys.rotate(other.id, 1000)
    revoked = keys.revoke(other.id)
    assert keys.revoke(other.id) == revoked
    for text in (other_text, rotated):
        with pytest.raises(AuthenticationError):
            keys.caller_of(text)
    assert not keys.has_usable()
    with pytest.raises(ParameterError, match="no such key"):
        keys.revoke("0" * 16)


def test_a_key_needs_a_name_and_a_scope(keys: KeyStore) -> None:
    for name, scopes in (("", ["read"]), ("a", []), ("a" * 129, ["read"])):
        with pytest.raises(ParameterError, match="a name and a scope"):
            keys.create(name, scopes)  # type: ignore[arg-type]
    assert keys.all_keys() == []


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.build_app(), [str(a) for a in arguments])


def opened(data: Path, text: str) -> ApiKey:
    store = KeyStore(sqlite_url(data / "store.sqlite"))
    try:
        return store.key(store.caller_of(text).owner)
    finally:
        store.close()


def test_the_command_makes_lists_rotates_and_revokes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    limits = ["--max-queued", "7", "--requests-per-minute", "30", "--max-priority", "2"]
    made = call("keys", "create", "studio", "--scope", "read", *limits, "--data", data)
    assert made.exit_code == 0, made.output
    text = made.stdout.strip()
    key = opened(data, text)
    assert (key.scopes, key.max_queued, key.requests_per_minute) == (("read",), 7, 30)
    assert key.max_priority == 2
    listed = call("keys", "list", "--data-dir", data)
    assert key.id in listed.stdout
    assert "good" in listed.stdout
    assert text.split("_", 2)[2] not in listed.stdout
    rotated = call("keys", "rotate", key.id, "--grace-hours", "0", "--data", data, "--json")
    new = json.loads(rotated.stdout)["key"]
    assert opened(data, new).id == key.id
    with pytest.raises(AuthenticationError):
        opened(data, text)
    assert call("keys", "revoke", key.id, "--data", data).exit_code == 0
    url = sqlite_url(data / "store.sqlite")
    (row,) = json.loads(call("keys", "list", "--database-url", url, "--json").stdout)
    assert row["revoked_at"] is not None
    assert not {"secret_sha256", "key"} & row.keys()


@pytest.mark.parametrize(
    "arguments", [["create", "a", "--scope", "root"], ["rotate", "none"], ["revoke", "none"]]
)
def test_the_command_refuses(arguments: list[str], tmp_path: Path) -> None:
    refused = call("keys", *arguments, "--data", tmp_path)
    assert refused.exit_code == ExitCode.BAD_INPUT
    assert refused.stderr.startswith("error: ")
