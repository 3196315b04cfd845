"""Texts to vectors: the encoder, and the pure arithmetic from message vectors to user vectors."""

from recs.embed.encoder import Encoder, LazyEncoder, TextEncoder
from recs.embed.texts import normalise_text, text_key
from recs.embed.vectors import conversation_vector, user_vector

__all__ = ["Encoder", "LazyEncoder", "TextEncoder", "conversation_vector", "normalise_text", "text_key", "user_vector"]
