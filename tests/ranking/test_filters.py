"""Why a campaign is left out: each reason, and which one is given where several hold."""

from datetime import UTC, datetime, timedelta

import pytest

from recs.model import Preferences
from recs.ranking import suppression_reason

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NOTHING_AGAINST = {
    "status": "active",
    "starts_at": None,
    "ends_at": None,
    "now": NOW,
    "any_channel_allowed": True,
    "channel_allowed": True,
    "own_actions": (),
    "new_only": True,
    "recent_views": 0,
    "frequency_cap": 10,
}


@pytest.mark.parametrize(
    ("against", "reason"),
    [
        ({}, None),
        ({"any_channel_allowed": False, "channel_allowed": False}, "opted_out"),
        ({"channel_allowed": False}, "channel_opt_out"),
        ({"status": "paused"}, "campaign_paused"),
        ({"status": "ended"}, "campaign_ended"),
        ({"ends_at": NOW}, "campaign_ended"),
        ({"ends_at": NOW + timedelta(seconds=1)}, None),
        ({"starts_at": NOW}, None),
        ({"starts_at": NOW + timedelta(seconds=1)}, "campaign_not_started"),
        ({"own_actions": {"convert", "like"}}, "already_converted"),
        ({"own_actions": {"dislike", "like"}}, "disliked"),
        ({"own_actions": {"like", "view"}}, "already_liked"),
        ({"own_actions": {"like", "convert"}, "new_only": False}, None),
        ({"own_actions": {"dislike"}, "new_only": False}, "disliked"),
        ({"own_actions": {"view", "click", "mention"}}, None),
        ({"recent_views": 10}, "frequency_cap"),
        ({"recent_views": 9}, None),
        ({"recent_views": 99, "frequency_cap": 0}, None),
    ],
)
def test_reason(against, reason):
    assert suppression_reason(**{**NOTHING_AGAINST, **against}) == reason


@pytest.mark.parametrize(
    ("channels", "email", "none", "any_at_all"),
    [
        (None, True, True, True),
        ({"email": False}, False, True, True),
        ({"*": False}, False, False, False),
        ({"*": False, "email": True}, True, False, True),
        (("email",), True, True, True),
        (("sms",), False, True, True),
        ((), False, False, False),
    ],
)
def test_channels(channels, email, none, any_at_all):
    preferences = Preferences(user_id="u", channels=channels)
    assert preferences.allows_channel("email") is email
    assert preferences.allows_channel(None) is none
    assert preferences.allows_any_channel() is any_at_all
