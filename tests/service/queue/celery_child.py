"""A Celery source in a process of its own: prints what it was told, and obeys a few words."""

from __future__ import annotations

import sys
import time

from service.queue.celery_queue import CelerySource


def main(url: str, slots: int, capability: str = "cpu", *also: str) -> None:
    source = CelerySource(url, capability, also=also, slots=slots)

    def handle(job_id: str) -> None:
        print(job_id, flush=True)
        if job_id.startswith("slow"):
            time.sleep(1.0)
            print(f"{job_id} done", flush=True)
        if job_id.startswith("long"):
            time.sleep(8.0)  # longer than another worker takes to start
        if job_id == "raise":
            raise ArithmeticError("a bug")
        if job_id == "stop":
            source.stop()

    print("starting", flush=True)
    try:
        source.run(handle)
    finally:
        print(f"dropped {source.dropped}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
