"""What must not be offered to a user, and the one reason that is given for it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Literal

from recs.model import Action

Reason = Literal[
    "opted_out",
    "channel_opt_out",
    "campaign_paused",
    "campaign_ended",
    "campaign_not_started",
    "already_converted",
    "disliked",
    "already_liked",
    "frequency_cap",
]

#: In the order in which they are asked; the first that holds is the reason given.
REASONS: dict[Reason, str] = {
    "opted_out": "the user wants no campaigns at all",
    "channel_opt_out": "the user wants no campaigns in this channel",
    "campaign_paused": "the campaign is paused",
    "campaign_ended": "the campaign has ended",
    "campaign_not_started": "the campaign has not started yet",
    "already_converted": "the user has converted on it already",
    "disliked": "the user disliked it",
    "already_liked": "the user has liked it already",
    "frequency_cap": "the user has seen it often enough lately",
}


def suppression_reason(
    *,
    status: str,
    starts_at: datetime | None,
    ends_at: datetime | None,
    now: datetime,
    any_channel_allowed: bool,
    channel_allowed: bool,
    own_actions: Collection[Action],
    new_only: bool,
    recent_views: int,
    frequency_cap: int,
) -> Reason | None:
    """Return why a campaign must not be offered, None where nothing speaks against it.

    A campaign runs from `starts_at` up to, not including, `ends_at`. A `frequency_cap` of 0 is no cap.
    """
    checks: list[tuple[Reason, bool]] = [
        ("opted_out", not any_channel_allowed),
        ("channel_opt_out", not channel_allowed),
        ("campaign_paused", status == "paused"),
        ("campaign_ended", status == "ended" or (ends_at is not None and now >= ends_at)),
        ("campaign_not_started", starts_at is not None and now < starts_at),
        ("already_converted", new_only and "convert" in own_actions),
        ("disliked", "dislike" in own_actions),
        ("already_liked", new_only and "like" in own_actions),
        ("frequency_cap", 0 < frequency_cap <= recent_views),
    ]
    return next((reason for reason, holds in checks if holds), None)
