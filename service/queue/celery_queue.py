"""The queue on Celery and Redis. Early acknowledgement, no result backend, no time limits: the broker only knocks.

Why these settings, with measurements: specs, service, section 9. Late acknowledgement ran a task up to three times,
reject-on-lost ran a poisonous one without end, and Celery's time limits do nothing in a thread pool.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis.exceptions
from celery import Celery
from celery.exceptions import CeleryError
from celery.signals import setup_logging, worker_shutting_down
from celery.worker import state as worker_state
from kombu.exceptions import KombuError, OperationalError

from service.queue.contract import Handler, QueueUnavailable, is_job_id
from service.queue.polling import POLL_S, Look
from service.queue.standin import ASK_S, SILENCE_S, BrokerWatch, Places, StandIn

TASK = "assay.attempt"

PUBLISH_S = 1.0
"""Longest wait for the broker when publishing; the reconciler heals what was not published."""

SETTINGS: dict[str, Any] = {
    "task_acks_late": False,
    "worker_disable_prefetch": True,
    "worker_prefetch_multiplier": 1,
    "task_reject_on_worker_lost": False,
    "task_ignore_result": True,
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_publish_retry": False,
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    "worker_hijack_root_logger": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,  # the default gives up after 100
    "task_create_missing_queues": True,
}

TRANSPORT: dict[str, Any] = {
    "global_keyprefix": "assay:",
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_keepalive": True,
    "health_check_interval": 25,
}

_BROKER_ERRORS = (OperationalError, KombuError, CeleryError, redis.exceptions.RedisError, OSError)


def make_app(broker_url: str, **transport: Any) -> Celery:
    """Return a Celery application of ours; it connects on first use.

    Args:
        broker_url: Redis, e.g. "redis+socket:///run/assay/redis.sock" or "rediss://host/1".
        **transport: transport options besides ours.
    """
    app = Celery("assay", broker=broker_url, set_as_current=False)
    options = {**TRANSPORT, **transport}
    if "+socket" in broker_url:
        options.pop("socket_keepalive")  # a TCP option; the Unix connection does not know it
    app.conf.update(SETTINGS, broker_transport_options=options)
    return app


def _impatient_app(broker_url: str) -> Celery:
    """Return an application that gives up within about `PUBLISH_S`."""
    return make_app(
        broker_url,
        socket_timeout=PUBLISH_S,
        socket_connect_timeout=PUBLISH_S,
        max_retries=1,
        interval_start=0,
        interval_max=0.1,
    )


class CeleryKnocker:
    """The scheduler's side.

    Args:
        broker_url: Redis.
    """

    def __init__(self, broker_url: str) -> None:
        self._app = _impatient_app(broker_url)

    def publish(self, job_id: str, capability: str) -> None:
        """See `Knocker.publish`."""
        try:
            self._app.send_task(TASK, args=[job_id], queue=capability, ignore_result=True, retry=False)
        except _BROKER_ERRORS as error:
            raise QueueUnavailable(f"the broker did not take a message: {type(error).__name__}") from error

    def depth(self, capability: str) -> int | None:
        """See `Knocker.depth`."""
        try:
            with self._app.connection_for_write() as connection:
                # Not a passive declare: kombu 5.7 forgets the key prefix there and finds no queue at all. Without
                # priorities a queue is one list.
                return int(connection.default_channel.client.llen(capability))
        except _BROKER_ERRORS as error:
            raise QueueUnavailable(f"the broker did not answer: {type(error).__name__}") from error

    def close(self) -> None:
        """Close the connections."""
        self._app.close()


class CelerySource:
    """The worker's side: a Celery worker with a thread pool, inside this process and its main thread.

    Args:
        broker_url: Redis.
        capability: the queue to serve.
        also: queues of lesser needs, looked at while that one is empty.
        slots: threads, each of which minds one cell.
        on_stop: told when SIGTERM or SIGINT has come; must return at once.
        look: finds the oldest queued job while the broker is silent; None waits for the broker.
        poll_s: seconds between two such looks of one slot.
        silence_s: how long the broker may be silent before it is looked.
    """

    def __init__(
        self,
        broker_url: str,
        capability: str = "cpu",
        *,
        also: Sequence[str] = (),
        slots: int = 1,
        on_stop: Callable[[], None] = lambda: None,
        look: Look | None = None,
        poll_s: float = POLL_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._app = make_app(broker_url, queue_order_strategy="service.queue.order:LargestFirst")
        self._asking = _impatient_app(broker_url)
        self._queues = [capability, *also]
        self._slots = slots
        self._on_stop = on_stop
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._ask_s = min(ASK_S, silence_s * ASK_S / SILENCE_S)
        self._watch = BrokerWatch(self._answers, silence_s=silence_s)
        self.places = Places(slots)
        """What knocks and looks share."""
        self._stand_in = (
            StandIn(self._watch, look, self._queues, self.places, slots=slots, poll_s=poll_s) if look else None
        )
        self.dropped = 0
        """Messages whose body could not be a job's id."""

    def run(self, handler: Handler) -> None:
        """See `Source.run`. SIGTERM and SIGINT stop it as `stop` does."""

        @self._app.task(name=TASK, ignore_result=True)  # type: ignore[untyped-decorator]
        def attempt(*body: object) -> None:
            self.knocked(handler, body)

        setup_logging.connect(_keep_logging, weak=False)
        worker_shutting_down.connect(self._note_stop, weak=False)
        try:
            worker_state.should_stop = None
            with self._standing_in(handler):
                self._work()
        finally:
            worker_shutting_down.disconnect(self._note_stop)
            worker_state.should_stop = None
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """See `Source.stop`."""
        self._take_no_more()
        worker_state.should_stop = 0

    def knocked(self, handler: Handler, body: tuple[object, ...]) -> None:
        """Handle one message in a place of its own; one that is no job's id is dropped and counted.

        Raises:
            BaseException: what the handler raised, after which this source takes no more.
        """
        if len(body) != 1 or not is_job_id(body[0]):
            self.dropped += 1
            return
        with self.places.taken(wait=True) as has_place:
            if not has_place:
                return  # taken from the broker while stopping: the reconciler knocks again for another worker
            with self._fatal():
                handler(str(body[0]))

    def _work(self) -> None:
        self._app.Worker(
            pool="threads",
            concurrency=self._slots,
            queues=self._queues,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
            optimization="fair",
            # Kombu's event loop sometimes slept on for ever after the broker on a Unix socket had been killed and
            # replaced (seen with celery 5.7.0); the plain loop looks at its connection every two seconds at most.
            use_eventloop=False,
        ).start()

    @contextmanager
    def _standing_in(self, handler: Handler) -> Iterator[None]:
        """Watch the broker during the block, and look for jobs while it is silent; end when no handler runs there."""
        if self._stand_in is None:
            yield
            return
        stand_in = self._stand_in
        asking = threading.Thread(target=self._ask_on, name="broker-watch", daemon=True)
        looking = threading.Thread(target=self._guarded, args=(lambda: stand_in.run(handler),), daemon=True)
        for thread in (asking, looking):
            thread.start()
        try:
            yield
        finally:
            self._take_no_more()
            for thread in (asking, looking):
                while thread.is_alive():
                    thread.join(0.5)  # a bounded join lets signal handlers of the main thread run

    def _ask_on(self) -> None:
        def ask() -> None:
            while not self._stop.wait(self._ask_s):
                self._watch.look()

        self._guarded(ask)

    def _answers(self) -> bool:
        """Say whether the broker answers now. Broken or not yet loaded, it cannot tell of a job either."""
        try:
            with self._asking.connection_for_read() as connection:
                connection.default_channel.client.ping()
        except _BROKER_ERRORS:
            return False
        return True

    def _guarded(self, body: Callable[[], None]) -> None:
        """Run a thread's body; what it raises is raised by `run`."""
        try:
            with self._fatal():
                body()
        except BaseException:  # noqa: S110  `run` raises it
            pass

    @contextmanager
    def _fatal(self) -> Iterator[None]:
        """Stop all if the block raises; its first exception is what `run` raises."""
        try:
            yield
        except BaseException as failure:
            self._failure = self._failure or failure
            self.stop()
            raise

    def _take_no_more(self) -> None:
        self._stop.set()
        self.places.close()
        if self._stand_in is not None:
            self._stand_in.stop()

    def _note_stop(self, **_signal: object) -> None:
        self._take_no_more()
        self._on_stop()


def _keep_logging(**_signal: object) -> None:
    """Tell Celery that logging is set up already, in our own form."""
