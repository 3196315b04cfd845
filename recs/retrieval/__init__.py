"""From a user, or a text, to ranked and explained campaigns."""

from recs.retrieval.recommender import Recommender

__all__ = ["Recommender"]
