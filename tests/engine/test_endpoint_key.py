"""The key of an API: where it comes from, and that no message holds it. What goes over the wire is in test_endpoint_engine.py."""

from __future__ import annotations

import pytest

from wdct_dist.config.schema import EndpointConfig
from wdct_dist.engine.endpoint_key import api_key
from wdct_dist.errors import ConfigError

KEY = "sk-test-0123456789"


def test_the_key_is_that_of_the_named_variable_without_the_space_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", f" {KEY}\n")
    settings = EndpointConfig(api_key_env="TEST_KEY")
    assert api_key(settings) == KEY
    assert KEY not in repr(settings)


def test_a_server_that_wants_none_gets_none_whatever_the_environment_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert api_key(EndpointConfig(api_key_env=None)) is None


@pytest.mark.parametrize("value", [None, "", " \n"])
def test_a_key_that_is_not_there_is_named_by_its_variable_with_what_to_do(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TEST_KEY", value)
    with pytest.raises(ConfigError, match=r"engine\.endpoint\.api_key_env: the environment has no TEST_KEY; export it .* set it to null"):
        api_key(EndpointConfig(api_key_env="TEST_KEY"))


@pytest.mark.parametrize("value", [f"{KEY}ü", f"{KEY}\n{KEY}", f"{KEY}\x7f"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", value)
    with pytest.raises(ConfigError, match="TEST_KEY holds characters that no header can carry") as refused:
        api_key(EndpointConfig(api_key_env="TEST_KEY"))
    assert KEY not in repr(refused.value)
