"""A service as a process: settings, logs, metrics and traces around its main coroutine."""

from collections.abc import Awaitable, Callable

import structlog
from threadpoolctl import ThreadpoolController

from services.common import logs, settings, telemetry
from services.common.rpc import leaves
from services.common.server import run

log = structlog.get_logger(__name__)


def start(
    service: str,
    chosen: type[settings.Settings],
    main: Callable[[settings.Settings], Awaitable[None]],
    *,
    reasons: tuple[type[Exception], ...],
) -> None:
    """Run a service to its end, and end the process with 0 or, if it could not start, with 1.

    Args:
        service: Its name in logs and traces.
        chosen: Its settings.
        main: What it does.
        reasons: Errors that say why it cannot start; they are logged in a line, without a stack.

    """
    loaded = settings.load(chosen)
    logs.configure(service, loaded.log_level)
    # Numpy's matrices are small here: its other threads would wait for work longer than they work,
    # and do so spinning.
    ThreadpoolController().limit(limits=1, user_api="blas")
    telemetry.start_metrics(loaded.metrics_host, loaded.metrics_port)
    telemetry.start_tracing(service, loaded.otlp_endpoint)
    failed = False
    try:
        run(main(loaded))
    except* reasons as errors:
        failed = True
        log.error("cannot start", reason="; ".join(str(error) for error in leaves(errors)))
    raise SystemExit(failed)
