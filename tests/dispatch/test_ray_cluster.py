"""When Ray is there and when it is gone."""

from __future__ import annotations

import os
import subprocess
import sys

LIFE = """
import signal
import threading
from wdct_dist.config.schema import DispatchConfig
from wdct_dist.dispatch import ray_environment

ray_environment.prepare()

import ray
from wdct_dist.dispatch.ray_cluster import Connection
from wdct_dist.errors import ConfigError

handler = signal.getsignal(signal.SIGTERM)
nobody = Connection(DispatchConfig(ray_address="127.0.0.1:1"))
nobody.start()
try:
    nobody.wait()
except ConfigError as error:
    print("no cluster answers" in str(error))
nobody.leave()
connection = Connection(DispatchConfig())
connection.start()
connection.wait()
print(ray.get(ray.remote(lambda: "a task").remote()))
second = Connection(DispatchConfig())
second.start()
second.wait()
second.leave()
print("left alone by who did not start it:", ray.is_initialized())
connection.leave()
print("there at the end:", ray.is_initialized(), len(threading.enumerate()), signal.getsignal(signal.SIGTERM) is handler)
"""


def test_a_local_ray_lasts_from_its_begin_to_its_end_and_belongs_to_whoever_began_it() -> None:
    # in a process of its own, since Ray reads its environment when it is imported
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", LIFE], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True", "a task", "left alone by who did not start it: True", "there at the end: False 1 True"]
    assert "SIGTERM" not in done.stderr
