"""What a key looks like, what is kept of it, and when it opens something."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from models.api_keys import KEY_PATTERN, KeyState, NewKey, Scope, digest_of, fits, key_id_of, without_keys
from models.errors import InvalidConfig, VoucherError


def test_a_key_is_long_random_and_recognisable() -> None:
    made = [NewKey("Ada").make() for _ in range(200)]
    texts = {text for _, text in made}
    assert len(texts) == len({kept.key_id for kept, _ in made}) == 200
    for kept, text in made:
        assert KEY_PATTERN.fullmatch(text)
        assert key_id_of(text) == kept.key_id
        assert kept.digest == digest_of(text)
        assert text.rsplit("_", 1)[1] not in repr(kept)
        assert kept.digest not in repr(kept)
    letters = "".join(text.rsplit("_", 1)[1] for text in texts)
    assert len(set(letters)) == 62
    assert all(abs(letters.count(letter) - len(letters) / 62) < 60 for letter in set(letters))
    assert not any(one[18:] == other[18:] for one, other in pairwise(sorted(texts)))


def test_only_the_whole_key_fits() -> None:
    kept, text = NewKey("Ada").make()
    assert fits(text, kept)
    for wrong in ("", text[:-1], text + "a", text.swapcase(), kept.digest, "\ud800", "vch_"):
        assert not fits(wrong, kept)
    assert not fits(text, None)
    assert not fits("", None)  # the stand-in for a key that does not exist is the hash of nothing


@pytest.mark.parametrize("text", ["", "vch_", "vch_0123456789ab_", "VCH_0123456789ab_" + "a" * 43, "a" * 300, "vch__"])
def test_what_does_not_look_like_a_key_has_no_id(text: str) -> None:
    assert key_id_of(text) is None


def test_a_key_opens_until_it_expires_or_is_revoked() -> None:
    kept, _ = NewKey("Ada", expires_in_days=2).make()
    now = datetime.now(UTC)
    assert kept.state() is kept.state(now + timedelta(days=1.99)) is KeyState.ACTIVE
    assert kept.state(now + timedelta(days=2.01)) is KeyState.EXPIRED
    forever, _ = NewKey("Ada").make()
    assert forever.state(now + timedelta(days=10_000)) is KeyState.ACTIVE


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": " "},
        {"name": "a\nb"},
        {"name": "x" * 101},
        {"scopes": frozenset()},
        {"daily_quota": 0},
        {"daily_quota": 2_000_000_000},
        {"per_minute": -1},
        {"expires_in_days": 0},
        {"expires_in_days": 1_000_000},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(VoucherError):
        NewKey(**({"name": "Ada"} | wrong))  # type: ignore[arg-type]
    with pytest.raises(InvalidConfig, match="from 1 to"):
        NewKey("Ada", daily_quota=0)


def test_the_scope_of_a_key_is_to_identify_unless_more_is_said() -> None:
    assert NewKey("Ada").scopes == {Scope.IDENTIFY}


def test_secrets_are_taken_out_of_text() -> None:
    kept, text = NewKey("Ada").make()
    cleaned = without_keys(f"GET /v2/identify?api-key={text}&lang=en {text!r}")
    assert text.rsplit("_", 1)[1] not in cleaned
    assert cleaned.count(f"vch_{kept.key_id}_…") == 2
    assert without_keys("nothing here") == "nothing here"
