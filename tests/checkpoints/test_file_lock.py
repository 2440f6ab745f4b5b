from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from wdct_dist.checkpoints.file_lock import locked

ADD_ONE = """
import sys, time
from pathlib import Path
from wdct_dist.checkpoints.file_lock import locked
counter = Path(sys.argv[1])
for _ in range(50):
    with locked(counter.with_suffix(".lock")):
        value = int(counter.read_text())
        time.sleep(0.0005)
        counter.write_text(str(value + 1))
"""


def test_processes_take_turns(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    adders = [subprocess.Popen([sys.executable, "-c", ADD_ONE, str(counter)], cwd=Path(__file__).parents[2]) for _ in range(3)]
    assert [adder.wait(240) for adder in adders] == [0, 0, 0]
    assert counter.read_text() == "150"


def test_the_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    code = "import sys, os\nfrom pathlib import Path\nfrom wdct_dist.checkpoints.file_lock import locked\n"
    killed = subprocess.run(
        [sys.executable, "-c", f"{code}with locked(Path(sys.argv[1])): os.kill(os.getpid(), 9)", str(tmp_path / "lock")],
        cwd=Path(__file__).parents[2],
        timeout=240,
        check=False,
    )
    assert killed.returncode == -9
    with locked(tmp_path / "lock"):
        assert (tmp_path / "lock").exists()
