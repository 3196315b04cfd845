"""Run the Milvus of the wheel `milvus` as this very process: `python milvus_standalone.py FOLDER PORT`.

The wheel's own command starts it as a child that a SIGTERM to the command leaves behind.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import milvus


def main() -> None:
    folder, port = Path(sys.argv[1]), sys.argv[2]
    config = milvus.MilvusServerConfig()
    config.configs["data_dir"] = str(folder)
    config.set("proxy_port", int(port))
    config.set("authorization_enabled", True)
    config.resolve()
    milvus._initialize_data_files(config.base_data_dir)
    program = milvus.MilvusServer(config).get_milvus_executable_path()
    metrics_port, taken = config.resolve_port(20_000)
    taken.close()
    os.chdir(folder)
    env = os.environ | {
        "DEPLOY_MODE": "STANDALONE",
        "METRICS_PORT": str(metrics_port),
        "MILVUS_RUN_DIR": str(folder / "run"),
        "LD_LIBRARY_PATH": str(Path(program).parent),
    }
    os.execve(program, [program, "run", "standalone"], env)


if __name__ == "__main__":
    main()
