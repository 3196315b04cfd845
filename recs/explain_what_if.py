"""Counterfactuals, dissent and stability as sentences and plain text, for the terminal and the workbench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recs.explain import COMPONENT_NAMES
from recs.model import Counterfactual, Dissent, Effect, Explanation, Move, Opinion, PartChange, Stability, Voice
from recs.ranking.filters import REASONS

_GROUPS = {"talks_alike": "who talk alike", "took_alike": "who took the same campaigns"}
_MET = {"view": "saw it", "click": "clicked on it", "mention": "mentioned it", "dislike": "disliked it"}
_TURNS_SHOWN = 5
_TEXT_SHOWN = 80


def describe_counterfactual(told: Counterfactual) -> str:
    """Return what a list would be without something, as lines of text."""
    lines = [f"User {told.user_id} without {_what(told.without, told.without_id, told.without_name)}:"]
    lines += [f"  {describe_move(move)}" for move in told.items]
    if told.entered or told.left:
        lines.append(f"Among the first {told.k}: {_exchange(told.entered, told.left)}.")
    else:
        lines.append(f"The first {told.k} stay the same campaigns.")
    return "\n".join([*lines, *_incomplete(told.degraded)])


def describe_move(move: Move) -> str:
    """Return what happens to one campaign as a sentence."""
    return f"{move.name} [{move.campaign_id}] {_goes(move)}; {_difference(move)}."


def describe_effect(effect: Effect) -> str:
    """Return what taking one thing away does to a campaign as a sentence."""
    what = _what(effect.without, effect.without_id, effect.without_name)
    return f"Without {what} it {_goes(effect.move)}; {_difference(effect.move)}."


def describe_explanation(told: Explanation) -> str:
    """Return what the place of one campaign hangs on and who did not take it, as lines of text."""
    where = f"is in {ordinal(told.rank)} place for" if told.rank is not None else "may not be offered to"
    lines = [f"{told.name} [{told.campaign_id}] {where} user {told.user_id}, score {told.score:.3f}"]
    if told.reason is not None:
        lines.append(f"  because {_reason(told.reason)}")
    lines.append("What it hangs on, each taken away by itself:")
    telling = [effect for effect in told.effects if effect.move.difference or _moves(effect.move)]
    lines += [f"  - {describe_effect(effect)}" for effect in telling]
    if not telling:
        lines.append("  - nothing of what was tried changes its score or place")
    elif len(telling) < len(told.effects):
        lines.append(f"  - {len(told.effects) - len(telling):,} other changes would change nothing")
    if told.not_tried:
        lines.append(f"  - {told.not_tried:,} further own campaigns and conversations were not tried")
    lines.append("Who took it, and who did not:")
    lines += describe_dissent(told.dissent)
    return "\n".join([*lines, *_incomplete(told.degraded)])


def describe_dissent(told: Dissent) -> list[str]:
    """Return what the neighbours did with a campaign, as lines of text."""
    lines = [f"  - {describe_opinion(opinion)}" for opinion in told.opinions if opinion.users]
    lines += [f"  - {describe_voice(voice)}" for voice in told.voices]
    if told.more_voices:
        lines.append(f"  - {told.more_voices:,} more met or disliked it")
    return lines or ["  - no neighbours are known"]


def describe_opinion(opinion: Opinion) -> str:
    """Return what one group of neighbours did, in numbers and by how much they count, as a sentence."""
    return (
        f"Of {opinion.users:,} users {_GROUPS[opinion.group]}, {opinion.took:,} took it "
        f"({opinion.took_share:.0%} of their say), {opinion.met:,} met it and did not take it "
        f"({opinion.met_share:.0%}), {opinion.disliked:,} disliked it ({opinion.disliked_share:.0%}), "
        f"{opinion.never_met:,} never met it ({opinion.never_met_share:.0%})."
    )


def describe_voice(voice: Voice) -> str:
    """Return what one neighbour who did not take a campaign did, as a sentence."""
    when = f" on {voice.at:%d %B %Y}" if voice.at else ""
    alike = "talks alike" if voice.group == "talks_alike" else "took the same campaigns"
    end = "" if voice.action == "dislike" else " and did not take it"
    return f"{voice.user_id}, who {alike} ({voice.similarity:.2f}), {_MET[voice.action]}{when}{end}."


def describe_stability(told: Stability) -> str:
    """Return how much of a list hangs on single messages, as lines of text."""
    who = f"user {told.user_id}" if told.user_id is not None else "these words"
    if told.mean is None or told.lowest is None:
        why = "there is no list" if not told.top else "there is no message that could be left out"
        lines = [f"How far the list for {who} hangs on single messages cannot be told: {why}."]
        return "\n".join([*lines, *_incomplete(told.degraded)])
    size = len(told.top)
    lines = [
        f"Of the first {size} campaigns for {who}, {told.mean * size:.1f} stay on average when one message is left out "
        f"and {told.lowest * size:.0f} at the least; tried on the latest {len(told.turns):,} of {told.messages:,}."
    ]
    telling = sorted((turn for turn in told.turns if turn.left or turn.entered), key=lambda turn: turn.overlap)
    for turn in telling[:_TURNS_SHOWN]:
        lines.append(f'  - Without "{_short(turn.text)}": {_exchange(turn.entered, turn.left)}.')
    if len(telling) > _TURNS_SHOWN:
        lines.append(f"  - {len(telling) - _TURNS_SHOWN:,} more messages change the list")
    return "\n".join([*lines, *_incomplete(told.degraded)])


def ordinal(place: int) -> str:
    """Return 1st for 1, 22nd for 22."""
    ending = "th" if 10 < place % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place:,}{ending}"


def _what(without: str, its_id: str, name: str | None) -> str:
    match without:
        case "neighbour":
            return f"the neighbour {its_id}"
        case "conversation":
            return f"the conversation {its_id}"
        case _:
            return f"having met {name or its_id} [{its_id}]"


def _goes(move: Move) -> str:
    before, after = move.rank_before, move.rank_after
    if before is None and after is None:
        return "may not be offered either way"
    if after is None:
        return f"may not be offered any more ({_reason(move.reason_after)})"
    if before is None:
        return f"may be offered, in {ordinal(after)} place"
    if before == after:
        return f"stays in {ordinal(before)} place"
    return f"{'falls' if after > before else 'rises'} from {ordinal(before)} to {ordinal(after)} place"


def _moves(move: Move) -> bool:
    return move.rank_before != move.rank_after


def _difference(move: Move) -> str:
    changed = [part for part in move.parts if part.difference]
    if not changed:
        return f"its score stays {move.score_before:.3f}"
    parts = ", ".join(_part(part) for part in sorted(changed, key=lambda part: -abs(part.difference)))
    return f"its score goes from {move.score_before:.3f} to {move.score_after:.3f} ({parts})"


def _part(part: PartChange) -> str:
    return f"{COMPONENT_NAMES.get(part.component, part.component)} {part.difference:+.3f}"


def _reason(reason: str | None) -> str:
    reasons: Mapping[str, str] = {str(name): words for name, words in REASONS.items()}
    return reasons.get(reason or "", reason or "")


def _exchange(entered: Sequence[str], left: Sequence[str]) -> str:
    parts = [f"{', '.join(left)} {'goes' if len(left) == 1 else 'go'}"] if left else []
    parts += [f"{', '.join(entered)} {'comes' if len(entered) == 1 else 'come'} in"] if entered else []
    return ", ".join(parts)


def _incomplete(degraded: Sequence[str]) -> list[str]:
    return [f"incomplete: no answer from {', '.join(degraded)}; `recs status` shows more"] if degraded else []


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _TEXT_SHOWN else text[: _TEXT_SHOWN - 1].rstrip() + "…"
