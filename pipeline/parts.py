"""Parts of a run that were handed out: to threads of this process, or to Dask workers."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import CancelledError
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture, PrefectWrappedFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from pipeline.run import Run
from recs.batch.work import Done, parts_in_hand
from recs.errors import RunError
from recs.settings import Settings

if TYPE_CHECKING:
    from distributed import Client

#: Tasks wait for one another and for stores in threads, which cost little.
THREADS = 12

_LOOK_SECONDS = 1.0
#: The longest that parts of a run that was killed are waited for: each of their store calls has a limit of its own.
_EARLIER_SECONDS = 120.0


def task_runner(settings: Settings) -> TaskRunner[Any]:
    """Return what runs the tasks that are handed out: Dask workers where there is an address, else threads."""
    if settings.dask_address is None:
        return ThreadPoolTaskRunner(max_workers=THREADS)
    import cloudpickle  # type: ignore[import-untyped]
    from prefect_dask.task_runners import DaskTaskRunner

    import pipeline

    # The tasks travel as code: workers need the package `recs`, and no checkout.
    cloudpickle.register_pickle_by_value(pipeline)
    return DaskTaskRunner(address=settings.dask_address)


class Parts:
    """Futures of tasks that return a Done, oldest first; each is noted in the run as it comes back."""

    def __init__(self, run: Run, workers: DaskWorkers | None) -> None:
        self._run = run
        self._workers = workers
        self._futures: deque[PrefectFuture[Any]] = deque()

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: PrefectFuture[Any]) -> None:
        """Take in a part, and note those at the head that are done."""
        self._futures.append(future)
        while self._futures and _is_done(self._futures[0]):
            self.settle(leave=len(self._futures) - 1)

    def settle(self, leave: int = 0) -> None:
        """Wait for the oldest parts until so many are left; an error of one of them is raised here."""
        while len(self._futures) > leave:
            future = self._futures.popleft()
            done: Done = future.result() if self._workers is None else self._workers.result(future)
            self._run.note(done)


class DaskWorkers:
    """The workers at the other end of the flow's task runner."""

    def __init__(self, client: Client, address: str, *, patience_seconds: float = 60.0) -> None:
        """`patience_seconds` is how long there may be no worker at all."""
        self._client = client
        self._address = address
        self._patience_seconds = patience_seconds
        self._last_seen = time.monotonic()

    @classmethod
    def connect(cls, settings: Settings) -> DaskWorkers | None:
        """Return the workers of the flow that is running, once they may be given work; None where there is no Dask.

        A run that was killed may have left them with parts in hand: these are waited for, because they could write
        what is out of date by then. Raises RunError where the scheduler cannot be reached, has no worker, or has one
        of another version of this package.
        """
        address = settings.dask_address
        context = FlowRunContext.get()
        if address is None or context is None:
            return None
        try:
            client: Client = context.task_runner.client  # type: ignore[attr-defined]  # the Dask runner has one
        except (OSError, ValueError) as exc:
            raise RunError(f"no Dask scheduler can be reached at RECS_DASK_ADDRESS={address}: {exc}") from exc
        workers = cls(client, address)
        workers._greet(settings)
        return workers

    def result(self, future: PrefectFuture[Any]) -> Done:
        """Return what a part did. Raises RunError where there is nobody left to do it."""
        from distributed.scheduler import KilledWorker

        try:
            # That a part is done is not enough: what it returned may be lost with the worker that has it.
            while (state := self._arrived(future)) is None:
                self._look()
        except KilledWorker as exc:
            raise RunError(
                f"a part of the run ended every Dask worker that tried it; their logs say why (memory?): {exc}"
            ) from exc
        except CancelledError as exc:
            raise RunError(f"the Dask scheduler at {self._address} was lost: {exc}") from exc
        done: Done = state.result()
        return done

    @staticmethod
    def _arrived(future: PrefectFuture[Any]) -> State[Any] | None:
        """Return what became of a part, None where that is not here after a little while."""
        assert isinstance(future, PrefectWrappedFuture), "the task runner wraps Dask's futures"
        try:
            state: State[Any] = future.wrapped_future.result(timeout=_LOOK_SECONDS)
        except TimeoutError:
            return None
        return state

    def _look(self) -> None:
        if self._client.status != "running":
            raise RunError(f"the Dask scheduler at {self._address} was lost")
        if self._count():
            self._last_seen = time.monotonic()
        elif time.monotonic() - self._last_seen > self._patience_seconds:
            raise RunError(f"the Dask scheduler at {self._address} has had no worker for {self._patience_seconds:g} s")

    def _count(self) -> int:
        return len(self._client.scheduler_info(n_workers=-1)["workers"])

    def _greet(self, settings: Settings) -> None:
        if not self._count():
            raise RunError(
                f"no worker is connected to the Dask scheduler at {self._address}; "
                "`dask worker ADDRESS`, in an environment with this package, starts one"
            )
        try:
            versions: dict[str, str] = self._client.run(version, "likeminded")
        except Exception as exc:
            raise RunError(f"the Dask workers at {self._address} do not have this package: {exc}") from exc
        here = version("likeminded")
        other = sorted({f"{found} at {worker}" for worker, found in versions.items() if found != here})
        if other:
            raise RunError(f"this is likeminded {here}, but the Dask workers have others: {', '.join(other)}")
        deadline = time.monotonic() + _EARLIER_SECONDS
        while in_hand := sum(self._client.run(parts_in_hand, settings.state_url).values()):
            if time.monotonic() > deadline:
                raise RunError(
                    f"the Dask workers at {self._address} still work at {in_hand} parts of an earlier run; "
                    "restart them if they hang"
                )
            time.sleep(0.5)


def _is_done(future: PrefectFuture[Any]) -> bool:
    assert isinstance(future, PrefectWrappedFuture), "both task runners wrap futures"
    return bool(future.wrapped_future.done())
