"""A broker for a whole file, and settings for it in both versions: every test that takes these runs twice."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.transports.mqtt_settings import MqttSettings
from tests.gateway.transports.broker import Mosquitto
from tests.gateway.transports.mqtt_house import VERSIONS, settings_for


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Mosquitto(tmp_path_factory.mktemp("mosquitto")) as running:
        yield running


@pytest.fixture(params=VERSIONS)
def settings(request: pytest.FixtureRequest, broker: Mosquitto) -> MqttSettings:
    """A client identifier of its own: the broker remembers nothing of another test."""
    name = "".join(c for c in request.node.name if c.isalnum())
    return settings_for(broker.port, request.param, identifier=name)
