from threading import active_count

import psutil

from bench.mesh import SERVICES, Served
from bench.vitals import Monitor, metrics
from services.common import telemetry


class OneProcess(Served):
    """A mesh whose services are all this process."""

    def service(self, name: str) -> psutil.Process:
        assert name in SERVICES
        return self.process


def test_samples_of_all_labels_are_added_up() -> None:
    text = (
        "# TYPE voxmesh_sessions gauge\n"
        'voxmesh_sessions{protocol="grpc"} 2.0\n'
        'voxmesh_sessions{protocol="wlk"} 1.0\n'
        "# TYPE voxmesh_streams gauge\n"
        "# TYPE voxmesh_tasks gauge\n"
        "voxmesh_tasks 14.0\n"
    )
    assert metrics(text) == {"voxmesh_sessions": 3, "voxmesh_streams": 0, "voxmesh_tasks": 14}


def test_what_a_process_holds_is_read(unused_tcp_port: int) -> None:
    telemetry.start_metrics("127.0.0.1", unused_tcp_port)
    url = f"http://127.0.0.1:{unused_tcp_port}/metrics"
    monitor = Monitor(OneProcess("", "", psutil.Process(), dict.fromkeys(SERVICES, url)))
    before = monitor.read()
    telemetry.SESSIONS.labels("soaked").inc()
    telemetry.STREAMS.labels("soaked").inc(2)
    after = monitor.read()
    telemetry.SESSIONS.remove("soaked")
    telemetry.STREAMS.remove("soaked")
    grown = {name: after[name].streams - before[name].streams for name in SERVICES}
    assert grown == {"gateway": 1, "vad": 2, "asr": 2}
    assert after["asr"].memory_mb > 10
    assert after["asr"].files >= 3
    assert after["asr"].threads >= active_count()
