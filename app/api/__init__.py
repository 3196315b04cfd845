"""The REST sidecar: recommendations for applications, described in docs/api.md.

`python -m app.api` serves it; `create_app` builds it for other servers.
"""

from app.api.application import create_app

__all__ = ["create_app"]
