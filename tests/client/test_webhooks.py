"""How a receiver checks a webhook's message."""

import base64
import json
from typing import Any

import pytest
from worldstereo_client.schemas import SceneStatus
from worldstereo_client.webhooks import WebhookInvalid, sign, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1_700_000_000
BODY = json.dumps(
    {
        "type": "scene.failed",
        "timestamp": NOW - 1,
        "data": {
            "id": "abc",
            "name": "kitchen",
            "status": "failed",
            "event": 7,
            "urls": {"self": "/s", "events": "/e", "cancel": "/c", "artefacts": "/a"},
            "of a newer server": 1,
        },
    }
).encode()


def headers(**changes: str) -> dict[str, str]:
    signature = sign("abc.7", NOW, BODY, SECRET)
    given = {"id": "abc.7", "timestamp": str(NOW), "signature": signature} | changes
    return {f"Webhook-{name.capitalize()}": value for name, value in given.items()}


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of github.com/standard-webhooks."""
    signature = sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', SECRET)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_message_is_read() -> None:
    event = verify(BODY, headers(), SECRET, now=NOW + 2)
    assert (event.type, event.data.status) == ("scene.failed", SceneStatus.FAILED)
    assert (event.data.id, event.data.event) == ("abc", 7)


def test_one_of_several_signatures_is_enough() -> None:
    other = "whsec_" + base64.b64encode(b"another secret of 24 byt").decode()
    both = f"{sign('abc.7', NOW, BODY, other)} {sign('abc.7', NOW, BODY, SECRET)}"
    for secret in (other, SECRET):
        verify(BODY, headers(signature=both), secret, now=NOW)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"body": BODY + b" "}, "signature"),
        ({"secret": "whsec_" + base64.b64encode(b"not that one").decode()}, "signature"),
        ({"headers": headers(id="abc.8")}, "signature"),
        ({"headers": headers(timestamp=str(NOW + 1))}, "signature"),
        ({"headers": headers(signature="v1,")}, "signature"),
        ({"headers": headers(signature="v2,é")}, "signature"),
        ({"headers": headers(timestamp="soon")}, "not a time"),
        ({"headers": headers(timestamp="²")}, "not a time"),
        ({"headers": {}}, "webhook-id, webhook-timestamp, webhook-signature"),
        ({"headers": headers(signature="")}, "webhook-signature"),
        ({"now": NOW + 301}, "too old"),
        ({"now": NOW - 301}, "future"),
        ({"secret": "whsec_?"}, "not a webhook secret"),
    ],
)
def test_what_is_not_the_servers_is_refused(changes: dict[str, Any], told: str) -> None:
    given: dict[str, Any] = {"body": BODY, "headers": headers(), "secret": SECRET, "now": NOW}
    with pytest.raises(WebhookInvalid, match=told):
        verify(**(given | changes))


def test_a_signed_body_that_is_no_event_is_refused() -> None:
    signed = headers(signature=sign("abc.7", NOW, b"{}", SECRET))
    with pytest.raises(WebhookInvalid, match="no event"):
        verify(b"{}", signed, SECRET, now=NOW)
