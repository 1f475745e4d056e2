"""What the service has to know of a broker and of the terminals behind it."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.errors import ConfigurationError
from gateway.transports.mqtt_broker import Broker
from gateway.transports.mqtt_topics import TERMINAL, Payload, Topics


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """A broker and the terminals behind it. Raises ConfigurationError."""

    broker: Broker
    gateway: str = "lingdian"
    """stands for `{gateway}` in topics"""
    group: str | None = None
    """gateways of one group take turns at the `shared` topics, and each hears only its own terminals on the
    others; None: there is one gateway, and it hears all"""
    topics: Topics = field(default_factory=Topics)
    payload: Payload = field(default_factory=Payload)
    links: int = 20_000
    held_messages: int = 256
    """unsettled messages of one terminal; what finds no room comes again later. At most half of the broker's
    `unacknowledged`; a sixteenth is a good measure"""
    patience_s: float = 20.0
    """a session that has so many, and settles none for so long, loses its link"""
    held_bytes: int = 67_108_864
    """unread bytes of all terminals"""
    away_s: float = 60.0
    """so long without the broker, and all links end"""
    deliver_again_s: float = 5.0
    """before the connection is made anew to have messages again that no session settled"""
    expiry_s: int = 30
    """how long the broker may keep what we send a terminal (MQTT 5)"""

    def __post_init__(self) -> None:
        for name in (self.gateway, *([self.group] if self.group is not None else [])):
            if not TERMINAL.fullmatch(name):
                raise ConfigurationError(f"MQTT gateway or group {name!r}: letters, digits and . _ - only")
        if self.group is not None and not TERMINAL.fullmatch(self.broker.identifier):
            raise ConfigurationError(
                f"MQTT identifier {self.broker.identifier!r} in a group: letters, digits and . _ - only"
            )
        if not 2 <= self.broker.unacknowledged <= 65_535 or self.expiry_s < 1:
            raise ConfigurationError("MQTT: unacknowledged is 2 to 65535, expiry_s at least 1")
        if not 1 <= self.held_messages <= self.broker.unacknowledged // 2:
            raise ConfigurationError("MQTT: held_messages is 1 to half of unacknowledged")

    @property
    def urgent_qos(self) -> int:
        """Of what must not arrive late. In 3.1.1 nothing expires: at QoS 1 the broker would keep it for a
        terminal that is away, and deliver it when it comes back."""
        return 1 if self.broker.version == "5" else 0
