"""What goes wrong in a benchmark."""

from __future__ import annotations

from recs.errors import RecsError


class BenchmarkError(RecsError):
    """What was measured did not do what it was measured for, so that its figures would say nothing."""
