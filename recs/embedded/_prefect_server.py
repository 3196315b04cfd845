"""Run Prefect's server: `python -m recs.embedded._prefect_server HOST PORT`, its settings in PREFECT_*.

What `prefect server start` does, in half the time, which every first command pays: the command line's own imports are
left out, and two costs of importing the server are avoided.
"""

from __future__ import annotations

import gc
import sys


def main() -> None:
    host, port = sys.argv[1], int(sys.argv[2])
    # jsonschema offers it for checking IRIs, does without where it is missing, and takes 2-4 s to import it: it builds
    # a parser from a grammar. Nothing in Prefect checks an IRI.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    # The imports make hundreds of thousands of objects that stay; looking for garbage among them finds none.
    gc.disable()
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(final=True)
    gc.freeze()
    gc.enable()
    uvicorn.run(app, host=host, port=port, timeout_keep_alive=5, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
