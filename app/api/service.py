"""What the routes ask: stores that open behind a running server, answers in bounded time."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from app.api.evidence import mask_stability, veil, veil_counterfactual, veil_explanation
from app.api.lookups import Found, Lookups
from app.api.metrics import Metrics
from app.api.problems import ProblemError, unavailable
from app.api.schemas import Readiness, StoreState
from recs import embedded
from recs.bootstrap import Stores, connect
from recs.embed import Encoder, TextEncoder
from recs.errors import NotFoundError, SchemaVersionError, StoreError, StoreUnavailableError
from recs.model import Audience, Counterfactual, Explanation, Head, Neighbour, Stability, TakenAway
from recs.privacy import Pseudonyms
from recs.retrieval import Recommender
from recs.settings import Settings

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: Threads per kind of work: long audiences and texts that wait for the model must not hold up the rest.
_ANSWER_THREADS, _AUDIENCE_THREADS, _TEXT_THREADS, _CHECK_THREADS = 8, 2, 2, 7
#: Store calls are bounded by the stores; these bound their sum and the wait for a thread.
ANSWER_SECONDS = 15.0
AUDIENCE_SECONDS = 60.0
#: The first text loads the model.
TEXT_SECONDS = 60.0
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class Opened:
    """What exists once the stores are open."""

    stores: Stores
    recommender: Recommender
    pseudonyms: Pseudonyms
    lookups: Lookups


class Service:
    """Everything behind the routes. Lives in one event loop; `start` returns at once, `stop` ends what it opened."""

    def __init__(self, settings: Settings, metrics: Metrics, *, give_up: Callable[[Exception], None]) -> None:
        """`give_up` hears of an error that no waiting will mend."""
        self._settings = settings
        self._metrics = metrics
        self._give_up = give_up
        self._exits = ExitStack()
        self._opened: Opened | None = None
        self._opening: asyncio.Task[None] | None = None
        self._missing: str | None = None
        self._answers = ThreadPoolExecutor(_ANSWER_THREADS, thread_name_prefix="api-answer")
        self._audiences = ThreadPoolExecutor(_AUDIENCE_THREADS, thread_name_prefix="api-audience")
        self._texts = ThreadPoolExecutor(_TEXT_THREADS, thread_name_prefix="api-text")
        self._lookups = ThreadPoolExecutor(1, thread_name_prefix="api-lookup")
        self._checks = ThreadPoolExecutor(_CHECK_THREADS, thread_name_prefix="api-check")
        self._checking: asyncio.Task[Readiness] | None = None
        self._under_way: dict[str, asyncio.Task[tuple[bytes, bytes]]] = {}

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to open the stores. Until they are open, `opened` raises a problem that says so."""
        self._opening = asyncio.create_task(self._open())

    async def stop(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        for executor in (self._lookups, self._answers, self._audiences, self._texts, self._checks):
            executor.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._exits.close)

    async def _open(self) -> None:
        try:
            settings = await asyncio.to_thread(self._exits.enter_context, embedded.session(self._settings))
            stores, pseudonyms = await self._connect(settings)
        except Exception as exc:  # noqa: BLE001  (handed on: nobody awaits this task while the server runs)
            self._give_up(exc)
            return
        self._exits.callback(stores.close)
        recommender = Recommender(stores, settings, encoder=lazily(lambda: Encoder.load(settings)))
        self._exits.callback(recommender.close)
        self._missing = None
        self._opened = Opened(stores, recommender, pseudonyms, Lookups(stores.state, stores.cache, self._lookups))

    async def _connect(self, settings: Settings) -> tuple[Stores, Pseudonyms]:
        """Return the stores, however long it takes for those that must answer when they are opened."""

        def connected() -> tuple[Stores, Pseudonyms]:
            with ExitStack() as opened:
                stores = connect(settings)
                opened.callback(stores.close)
                pseudonyms = Pseudonyms.of_installation(stores.state, settings.home)
                opened.pop_all()
                return stores, pseudonyms

        for attempt in range(10**9):
            try:
                return await asyncio.to_thread(connected)
            except StoreUnavailableError as exc:
                if self._missing != exc.store:
                    log.warning("waiting for a store", store=exc.store)
                self._missing = exc.store
            await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
        raise AssertionError("unreachable")

    @property
    def settings(self) -> Settings:
        return self._settings

    def opened(self) -> Opened:
        """Return what is open; raises the problem `starting` or `store_unavailable` before it is."""
        if self._opened is not None:
            return self._opened
        if self._missing is not None:
            raise unavailable(
                "store_unavailable", f"The {self._missing} store does not answer yet.", stores=[self._missing]
            )
        raise unavailable("starting", "The stores are being opened.")

    # -- its own state -----------------------------------------------------------------------------------------------

    async def readiness(self) -> Readiness:
        """Return what answers; raises the problem `not_ready` or `not_published`. Those who ask at once share one."""
        if self._checking is None:
            self._checking = asyncio.create_task(self._check(self.opened()))
            self._checking.add_done_callback(self._checked)
        return await asyncio.shield(self._checking)

    def _checked(self, _: asyncio.Task[Readiness]) -> None:
        self._checking = None

    async def _check(self, opened: Opened) -> Readiness:
        run = functools.partial(asyncio.get_running_loop().run_in_executor, self._checks)
        head = run(opened.stores.state.head)
        checks = {role: run(store.check) for role, store in opened.stores.all().items()}
        asked: list[asyncio.Future[Any]] = [head, *checks.values()]
        await asyncio.wait(asked, timeout=2 * self._settings.store_timeout_seconds + 1)
        missing = [role for role, check in checks.items() if not check.done() or check.exception() is not None]
        if not head.done() or head.exception() is not None:
            missing = sorted({*missing, "state"})
        for role, check in checks.items():
            if check.done() and not isinstance(error := check.exception(), StoreError | None):
                raise error
            if role in missing:
                other = check.exception() if check.done() else None
                text = str(other) if isinstance(other, SchemaVersionError) else None
                log.info("store is not ready", store=role, text=text)
        if missing:
            raise unavailable("not_ready", f"Stores that do not answer: {', '.join(missing)}.", stores=missing)
        _require_published(head.result())
        states = {
            role: StoreState(product=check.result().product, milliseconds=round(check.result().milliseconds, 3))
            for role, check in checks.items()
        }
        return Readiness(generation=head.result().generation, stores=states)

    async def generation(self) -> tuple[int | None, str]:
        """Return the number of the current generation, None where it cannot be told, and the embedding model."""

        def read() -> tuple[int | None, str]:
            try:
                opened = self.opened()
                head = opened.stores.state.head()
                model = opened.recommender.generation(head).model if head.generation else self._settings.model
                return head.generation, model
            except (StoreUnavailableError, ProblemError):
                # What this process is made of can be told without the stores.
                return None, self._settings.model

        return await self._run(self._answers, read, ANSWER_SECONDS)

    # -- answers -----------------------------------------------------------------------------------------------------

    async def recommend(self, user_id: str, k: int, explain: bool) -> tuple[bytes, bool]:
        """Return an answer as JSON, and whether it is a copy of an earlier one."""
        opened = self.opened()
        # Explained answers go out veiled, and are kept so: the workbench shares the cache and shows what they are of.
        form = "veiled" if explain else ""
        key_of = functools.partial(_key, opened.recommender, user_id, k, explain, form)
        found = await opened.lookups.find(key_of)
        _require_published(found.head)
        if found.body is not None:
            self._metrics.recommended(hit=True)
            return found.body, True
        task = self._under_way.get(found.key)
        if task is not None:
            # The same was asked a moment ago and is being computed under the same head: one answer serves both.
            _, copy = await asyncio.shield(task)
            self._metrics.recommended(hit=True)
            return copy, True
        task = asyncio.create_task(self._compute(opened, found, user_id, k, explain))
        self._under_way[found.key] = task
        task.add_done_callback(lambda _: self._under_way.pop(found.key, None))
        body, _ = await asyncio.shield(task)
        self._metrics.recommended(hit=False)
        return body, False

    async def _compute(self, opened: Opened, found: Found, user_id: str, k: int, explain: bool) -> tuple[bytes, bytes]:
        """Return the answer and its copy for others, both as JSON."""

        def compute() -> tuple[bytes, bytes]:
            recommender = opened.recommender
            answer = veil(recommender.compute(found.head, user_id, k=k, explain=explain), opened.pseudonyms)
            if found.cache_down:
                answer.degraded = sorted({*answer.degraded, "cache"})
            recommender.keep(found.key, answer)
            self._metrics.degraded(answer.degraded)
            copy = answer.model_copy(update={"cached": True})
            return answer.model_dump_json().encode(), copy.model_dump_json().encode()

        return await self._run(self._answers, compute, ANSWER_SECONDS)

    async def recommend_text(self, texts: Sequence[str], k: int, explain: bool) -> bytes:
        """Return an answer as JSON for somebody of whom only these messages are known."""

        def compute() -> bytes:
            opened = self._published()
            answer = veil(opened.recommender.recommend_text(texts, k=k, explain=explain), opened.pseudonyms)
            self._metrics.degraded(answer.degraded)
            return answer.model_dump_json().encode()

        return await self._run(self._texts, compute, TEXT_SECONDS)

    async def neighbours(self, user_id: str, k: int) -> tuple[int, list[Neighbour]]:
        """Return a generation, and the users most like a user in it, under their pseudonyms."""

        def compute() -> tuple[int, list[Neighbour]]:
            opened, generation, found = self.opened(), 0, list[Neighbour]()
            # Once more where a publish came in between.
            while (head := _published_head(opened)).generation != generation:
                generation, found = head.generation, opened.recommender.neighbours(user_id, k=k)
            name = functools.partial(opened.pseudonyms.of, "user")
            return generation, [Neighbour(user_id=name(n.user_id), similarity=n.similarity) for n in found]

        return await self._run(self._answers, compute, ANSWER_SECONDS)

    async def audience(self, campaign_id: str, limit: int) -> Audience:
        """Return who should get a campaign, under their real ids."""

        def compute() -> Audience:
            audience = self._published().recommender.audience(campaign_id, limit=limit)
            self._metrics.degraded(audience.degraded)
            return audience

        return await self._run(self._audiences, compute, AUDIENCE_SECONDS)

    async def explanation(self, user_id: str, campaign_id: str) -> Explanation:
        """Return what the place of a campaign hangs on, other users under their pseudonyms."""

        def compute() -> Explanation:
            opened = self._published()
            told = opened.recommender.explanation(user_id, campaign_id)
            self._metrics.degraded(told.degraded)
            return veil_explanation(told, opened.pseudonyms)

        return await self._run(self._audiences, compute, AUDIENCE_SECONDS)

    async def counterfactual(
        self, user_id: str, without: TakenAway, without_id: str, campaign_id: str | None, k: int
    ) -> Counterfactual:
        """Return a list without something; a neighbour is asked for, and named, by the pseudonym."""

        def compute() -> Counterfactual:
            opened = self._published()
            what_if = opened.recommender.what_if(user_id)
            its_id = without_id
            if without == "neighbour":
                # A real id is no way in: asking would tell whether that customer is like this one.
                real = {opened.pseudonyms.of("user", member): member for member in what_if.members()}
                if without_id not in real:
                    what_if.require_words()
                    raise NotFoundError(f"{without_id!r} is not the pseudonym of a user who counts for {user_id!r}")
                its_id = real[without_id]
            told = what_if.counterfactual(without, its_id, campaign_id=campaign_id, k=k)
            self._metrics.degraded(told.degraded)
            return veil_counterfactual(told, opened.pseudonyms)

        return await self._run(self._answers, compute, ANSWER_SECONDS)

    async def stability(self, user_id: str) -> Stability:
        """Return how much of a list hangs on single messages, the user's words masked."""

        def compute() -> Stability:
            told = self._published().recommender.stability(user_id)
            self._metrics.degraded(told.degraded)
            return mask_stability(told)

        return await self._run(self._audiences, compute, AUDIENCE_SECONDS)

    def _published(self) -> Opened:
        opened = self.opened()
        _published_head(opened)
        return opened

    async def _run(self, executor: Executor, call: Callable[[], T], seconds: float) -> T:
        """Return what a call returns in one of the threads; one still queued when the time is up never runs."""
        future = asyncio.get_running_loop().run_in_executor(executor, call)
        try:
            return await asyncio.wait_for(future, seconds)
        except TimeoutError as exc:
            raise unavailable("timeout", f"There was no answer within {seconds:g} s.") from exc


def lazily(load: Callable[[], TextEncoder]) -> Callable[[], TextEncoder]:
    """Return a function that loads once, for all threads, when it is first called; a failure is tried again."""
    lock = threading.Lock()
    loaded: list[TextEncoder] = []

    def encoder() -> TextEncoder:
        with lock:
            if not loaded:
                loaded.append(load())
            return loaded[0]

    return encoder


def _key(recommender: Recommender, user_id: str, k: int, explain: bool, form: str, head: Head) -> str:
    return recommender.cache_key(head, user_id, k, explain, form=form)


def _published_head(opened: Opened) -> Head:
    head = opened.stores.state.head()
    _require_published(head)
    return head


def _require_published(head: Head) -> None:
    if not head.generation:
        raise unavailable("not_published", "Nothing has been published yet; `recs run FILE --campaigns FILE` does.")
