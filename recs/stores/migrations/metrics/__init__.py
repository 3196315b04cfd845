"""Revisions of the analytics store's schema."""
