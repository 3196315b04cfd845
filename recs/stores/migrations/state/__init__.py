"""Revisions of the state store's schema."""
