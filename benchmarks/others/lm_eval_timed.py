"""`lm_eval` with a stopwatch on its scoring: `python lm_eval_timed.py FILE run --model vllm …`.

FILE gets one JSON object: the seconds of the calls that ask the model, of all that lm-evaluation-harness spends the part that goes on
with the number of prompts. Runs with a Python that has lm_eval; nothing of this project is needed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm_eval.__main__ import cli_evaluate
from lm_eval.models.vllm_causallms import VLLM


def timed(call: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def called(*given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        result = call(*given, **named)
        spent.append(time.perf_counter() - began)
        return result

    return called


def main() -> None:
    target = Path(sys.argv.pop(1))
    spent: list[float] = []
    for name in ("loglikelihood", "generate_until"):
        setattr(VLLM, name, timed(getattr(VLLM, name), spent))
    cli_evaluate()
    target.write_text(json.dumps({"asking_s": sum(spent)}))


if __name__ == "__main__":
    main()
