"""Times named functions in every Python process that finds this on its PYTHONPATH, without a change to the program.

WDCT_WATCH is a file, WDCT_WATCHED a list of `module:function` or `module:Class.method`. Each call leaves a line of JSON in the
file: name, process, seconds since 1970 at begin and end. A process leaves one at its start, too.
"""

from __future__ import annotations

import functools
import importlib.machinery
import json
import os
import sys
import time
from collections import defaultdict
from typing import Any

TARGET = os.environ.get("WDCT_WATCH")
NAMES = os.environ.get("WDCT_WATCHED", "").split()


def note(name: str, began: float, ended: float) -> None:
    line = json.dumps({"name": name, "process": os.getpid(), "began": began, "ended": ended}) + "\n"
    file = os.open(str(TARGET), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())  # one write: lines of several processes do not mix
    os.close(file)


def timed(call: Any, name: str) -> Any:
    @functools.wraps(call)
    def called(*given: Any, **named: Any) -> Any:
        began = time.time()
        try:
            return call(*given, **named)
        finally:
            note(name, began, time.time())

    return called


class Finder:
    """Finds the modules that are watched as Python would, and wraps their functions once they are there."""

    def __init__(self, names: list[str]) -> None:
        self._wanted: dict[str, list[str]] = defaultdict(list)
        for name in names:
            module, _, function = name.partition(":")
            self._wanted[module].append(function)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in self._wanted:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_wrap(module: Any) -> None:
            execute(module)
            for function in self._wanted[name]:
                *owners, last = function.split(".")
                owner = module
                for one in owners:
                    owner = getattr(owner, one)
                setattr(owner, last, timed(getattr(owner, last), f"{name}:{function}"))

        spec.loader.exec_module = execute_and_wrap
        return spec


if TARGET:
    note("process", time.time(), time.time())
    sys.meta_path.insert(0, Finder(NAMES))
