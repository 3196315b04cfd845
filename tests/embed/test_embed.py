"""From texts to user vectors, with the real model where it matters."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recs.embed import Encoder, LazyEncoder, conversation_vector, normalise_text, text_key, user_vector
from recs.embed.vectors import recency_weights, unit
from recs.errors import ModelError
from recs.model import Conversation, StoredConversation
from recs.settings import Settings

T0 = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return Encoder.load(Settings(home=tmp_path_factory.mktemp("home")))


def stored(conversation_id, days=None, seq=None, position=1):
    at = None if days is None else T0 + timedelta(days=days)
    conversation = Conversation(conversation_id=conversation_id, user_id="u", started_at=at, seq=seq)
    return StoredConversation(conversation, "h", position, "r")


def test_vectors_are_those_of_the_library(encoder):
    texts = ["Where is my desk?", "a " * 400, "ok", "Ein Tisch für draußen 🌿", "Where is my desk?"]
    ours = encoder.encode(texts)
    theirs = encoder.model.encode(texts, normalize_embeddings=True)
    assert ours.shape == (5, encoder.dim)
    assert ours.dtype == np.float32
    assert (ours * theirs).sum(axis=1).min() > 0.99
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(ours[0], ours[4], atol=1e-6)


def test_nothing_to_encode_is_an_empty_matrix(encoder):
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_the_precision_is_calibrated_once_and_remembered(tmp_path):
    settings = Settings(home=tmp_path)
    first = Encoder.load(settings)
    remembered = (tmp_path / "calibration.json").read_text()
    assert Encoder.load(settings).identity == first.identity
    assert (tmp_path / "calibration.json").read_text() == remembered


def test_an_encoder_that_is_not_asked_loads_nothing(tmp_path, monkeypatch):
    settings = Settings(home=tmp_path)
    identity = Encoder.load(settings).identity
    monkeypatch.setattr("recs.embed.encoder._load_model", lambda source: pytest.fail("loaded"))
    lazy = LazyEncoder(settings, dim=384)
    assert lazy.identity == identity
    assert lazy.encode([]).shape == (0, 384)


def test_a_lazy_encoder_encodes_as_the_other_does(tmp_path, encoder):
    # The arithmetic is measured anew in each home, and a busy machine may choose another one.
    lazy = LazyEncoder(Settings(home=tmp_path, precision=encoder.identity.rpartition("/")[2]))
    np.testing.assert_array_equal(lazy.encode(["a desk"]), encoder.encode(["a desk"]))
    assert (lazy.identity, lazy.dim) == (encoder.identity, encoder.dim)


def test_a_damaged_calibration_file_is_measured_again(tmp_path):
    (tmp_path / "calibration.json").write_text("{")
    assert Encoder.load(Settings(home=tmp_path)).dim == 384


def test_a_model_that_is_not_there_is_said_so(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="without"):
        Encoder.load(Settings(home=tmp_path, model=str(tmp_path / "empty")))


def test_weights_that_are_not_the_published_ones_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("recs.embed.encoder._WHEEL_SHA256", "0" * 64)
    with pytest.raises(ModelError, match="sha256"):
        Encoder.load(Settings(home=tmp_path))


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("  two\n words ", "two words"),
        ("ﬁne", "fine"),
        ("e\u0301", "é"),
        ("zero\u200bwidth", "zerowidth"),
        ("nul\x00", "nul"),
        ("👩\u200d👧", "👩\u200d👧"),
        ("\u200b \x00", ""),
        ("", ""),
    ],
)
def test_what_is_embedded_of_a_text(text, seen):
    assert normalise_text(text, 100) == seen


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing(text):
    once = normalise_text(text, 10_000)
    assert normalise_text(once, 10_000) == once
    assert len(text_key(once)) == 64


def test_a_conversation_is_the_mean_of_its_messages():
    assert conversation_vector(np.array([[1, 0], [0, 1]], dtype=np.float32)).tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="no vector"):
        conversation_vector(np.empty((0, 2), dtype=np.float32))


def test_half_life_in_days_where_all_times_are_known():
    weights = recency_weights([T0, T0 + timedelta(days=10), T0 + timedelta(days=20)], 10)
    np.testing.assert_allclose(weights, [0.25, 0.5, 1])


def test_half_life_in_conversations_where_a_time_is_missing():
    weights = recency_weights([None] + [T0] * 10, 10)
    np.testing.assert_allclose(weights[[0, -1]], [0.5, 1])


def test_a_user_is_the_recency_weighted_mean_of_the_conversations():
    vectors = {"old": np.array([1, 0], dtype=np.float32), "new": np.array([0, 1], dtype=np.float32)}
    found = user_vector([stored("old", 0), stored("silent", 5), stored("new", 10)], vectors, half_life_days=10)
    np.testing.assert_allclose(found, unit(np.array([0.5, 1.0])), atol=1e-6)
    assert user_vector([stored("silent")], vectors, 10) is None


def test_order_is_the_start_else_seq_else_the_place_in_the_file():
    found = [stored("t", days=1), stored("s2", seq=2), stored("s1", seq=1, position=9), stored("p", position=3)]
    assert [s.conversation.conversation_id for s in sorted(found, key=StoredConversation.order_key)] == [
        "s1",
        "s2",
        "p",
        "t",
    ]
