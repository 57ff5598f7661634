"""How a process of a pool behaves, whatever it computes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

from threadpoolctl import threadpool_limits


def become_pool_worker() -> None:
    """For a pool's `initializer`: Ctrl-C is for the parent, and a worker whose parent is gone ends itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threadpool_limits(1)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
