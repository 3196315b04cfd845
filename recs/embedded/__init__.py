"""The local servers behind the default URLs: started on demand, on loopback, their data under RECS_HOME.

`session` is what a command wraps around its work; `up`, `down` and `status` are the commands of those names.
See docs/embedded-servers.md.
"""

from __future__ import annotations

from recs.embedded._service import SERVICES, STORES, ServerStatus, down, session, status, up

__all__ = ["SERVICES", "STORES", "ServerStatus", "down", "session", "status", "up"]
