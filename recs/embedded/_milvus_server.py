"""Run Milvus Lite's server: `python -m recs.embedded._milvus_server DATA_DIRECTORY HOST PORT`.

What `milvus-lite server` does, with two options of gRPC that its command line does not offer.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_OPTIONS = [
    # pymilvus asks every 10 s whether the server lives; by default that counts as an attack after a while, and the
    # server drops the connection in the middle of whatever the client does.
    ("grpc.http2.max_ping_strikes", 0),
    # By default a second server may listen on the same port, and clients reach one or the other.
    ("grpc.so_reuseport", 0),
]


def main() -> None:
    data, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    grpc: Any = importlib.import_module("grpc")
    make_server = grpc.server

    def server(*args: Any, options: Any = (), **more: Any) -> Any:
        return make_server(*args, options=[*(options or ()), *_OPTIONS], **more)

    grpc.server = server
    importlib.import_module("milvus_lite.adapter.grpc.server").run_server(data_dir=data, host=host, port=port)


if __name__ == "__main__":
    main()
