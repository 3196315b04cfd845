"""Evidence as it may leave: other customers under pseudonyms, quotes without contact and account data."""

from __future__ import annotations

from recs.model import Counterfactual, Evidence, Explanation, Quote, Recommendations, Stability
from recs.privacy import Pseudonyms, mask_text


def veil(answer: Recommendations, pseudonyms: Pseudonyms) -> Recommendations:
    """Return the answer with every piece of evidence veiled; the answer handed in stays as it is."""
    items = [
        item.model_copy(update={"evidence": [_veiled(piece, pseudonyms) for piece in item.evidence]})
        for item in answer.items
    ]
    return answer.model_copy(update={"items": items, "degraded": [*answer.degraded]})


def veil_counterfactual(told: Counterfactual, pseudonyms: Pseudonyms) -> Counterfactual:
    """Return the same with a neighbour under the pseudonym."""
    if told.without != "neighbour":
        return told
    return told.model_copy(update={"without_id": pseudonyms.of("user", told.without_id)})


def veil_explanation(told: Explanation, pseudonyms: Pseudonyms) -> Explanation:
    """Return the same with every other user under the pseudonym."""
    effects = [
        effect.model_copy(update={"without_id": pseudonyms.of("user", effect.without_id)})
        if effect.without == "neighbour"
        else effect
        for effect in told.effects
    ]
    voices = [v.model_copy(update={"user_id": pseudonyms.of("user", v.user_id)}) for v in told.dissent.voices]
    dissent = told.dissent.model_copy(update={"voices": voices})
    return told.model_copy(update={"effects": effects, "dissent": dissent})


def mask_stability(told: Stability) -> Stability:
    """Return the same with the user's own messages masked."""
    turns = [turn.model_copy(update={"text": mask_text(turn.text)}) for turn in told.turns]
    return told.model_copy(update={"turns": turns})


def _veiled(piece: Evidence, pseudonyms: Pseudonyms) -> Evidence:
    quote, own = piece.quote, piece.own_quote
    return piece.model_copy(
        update={
            "user_id": None if piece.user_id is None else pseudonyms.of("user", piece.user_id),
            "quote": None
            if quote is None
            else Quote(
                conversation_id=pseudonyms.of("conversation", quote.conversation_id),
                message_index=quote.message_index,
                text=mask_text(quote.text),
            ),
            # The asking user's own words: the conversation is theirs, what they typed into it is masked all the same.
            "own_quote": None if own is None else own.model_copy(update={"text": mask_text(own.text)}),
        }
    )
