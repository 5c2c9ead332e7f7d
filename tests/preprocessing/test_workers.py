"""Pools of processes end in the middle of their work, and leave nothing behind."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest

from hilum.preprocessing.workers import open_pool


def test_a_pool_is_killed_while_it_works_and_is_given_work(monkeypatch) -> None:
    failed: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    large = np.zeros(2**20)
    for wait_s in (0, 0.05):
        pool = open_pool(1)
        tasks = [pool.submit(time.sleep, 60), *(pool.submit(np.sum, large) for _ in range(9))]
        time.sleep(wait_s)
        thread = pool._executor_manager_thread
        pool.kill()
        with pytest.raises(BrokenProcessPool):
            tasks[-1].result(timeout=10)
        pool.shutdown(wait=False)
        thread.join(10)
        assert not thread.is_alive()
    assert not failed


def test_a_killed_pool_closes_no_file_that_was_opened_since(tmp_path) -> None:
    pool = open_pool(1)
    assert pool.submit(os.getpid).result() != os.getpid()
    pool.kill()
    with (tmp_path / "opened").open("wb") as file:
        pool.shutdown(wait=True)
        file.write(b"whole")
    assert (tmp_path / "opened").read_bytes() == b"whole"
