from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from wdct_dist.config.schema import Config, EngineConfig, EngineKind
from wdct_dist.engine.build import build_engine

ROOT = Path(__file__).resolve().parents[2]

WITHOUT_PACKAGES = """
import sys
sys.path.insert(0, ROOT)
from wdct_dist.config.schema import Config
from wdct_dist.engine.build import build_engine
from wdct_dist.errors import ConfigError
try:
    build_engine(None, Config())
except ConfigError as error:
    print(error)
"""


def test_the_scripted_engine_is_built_where_it_is_configured(make_checkpoint, make_prompt):
    engine = build_engine(make_checkpoint(), Config(engine=EngineConfig(kind=EngineKind.scripted)))
    assert engine.facts.kind == "scripted"
    assert len(engine.answer([make_prompt()], 0)) == 1


def test_where_vllm_is_missing_the_message_says_how_to_install_it():
    # -S: an interpreter that sees no installed package
    script = f"ROOT = {str(ROOT)!r}\n{WITHOUT_PACKAGES}"
    ended = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True)
    assert "make install" in ended.stdout
    assert "pip install 'wdct_dist[gpu]'" in ended.stdout
    assert "engine.kind: scripted" in ended.stdout
