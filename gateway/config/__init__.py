"""Settings: one TOML file, and environment variables over it. Checked whole at start; frozen afterwards.

`LINGDIAN_SESSION__REPEATS=3` sets `repeats` of section `[session]`. A wrong or unknown key stops the start
with a message that names the key, where it was set, and what is allowed.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator
from datetime import datetime, time
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.sources import InitSettingsSource

from gateway.config.channels import BrokerSettings, DialSettings, LineSettings, ListenSettings, ModemSettings
from gateway.config.section import Address, Section, split_address
from gateway.errors import ConfigurationError

__all__ = [
    "BrokerSettings",
    "DialSettings",
    "LineSettings",
    "ListenSettings",
    "ModemSettings",
    "split_address",
]

ENVIRONMENT_PREFIX: Final = "LINGDIAN_"
SECTION_MARK: Final = "__"


class DatabaseSettings(Section):
    """Where readings are kept. Without `url` the embedded PostgreSQL in the state folder is used."""

    url: SecretStr | None = None
    """libpq connection string: `postgresql://user:password@host/name`"""
    pool_size: int = Field(default=8, ge=2, le=100)
    """connections for everything but the one of the writer"""
    connect_timeout_seconds: float = Field(default=5.0, gt=0, le=120)
    statement_timeout_seconds: float = Field(default=120.0, gt=0, le=3600)
    batch_rows: int = Field(default=20_000, ge=1, le=200_000)
    """rows a COPY; smaller ones cost speed (1,000: 40 %)"""
    queue_rows: int = Field(default=200_000, ge=1, le=5_000_000)
    """rows that may wait for the writer; when full, sessions wait"""


class HttpSettings(Section):
    """The HTTP interface for other machines: health and metrics for anybody, the rest by token. Off unless an
    address is given."""

    address: Address | None = None
    certificate: Path | None = None
    """PEM, with the chain: TLS. Without it tokens are taken on this machine's own addresses only"""
    key: Path | None = None
    """PEM, of the certificate"""
    client_authorities: Path | None = None
    """PEM: only clients with a certificate of these authorities are let in (mutual TLS)"""
    behind_proxy: bool = False
    """a proxy in front speaks TLS: tokens are taken without it here"""
    webhooks_to_ourselves: bool = False
    """webhooks may name this machine, and plain http: for the bench only"""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        if self.client_authorities is not None and self.certificate is None:
            raise ValueError("client_authorities needs certificate and key")
        return self

    def private(self) -> bool:
        """Can nobody on the way read a token? By TLS, here or in front, or because the way is this
        machine."""
        if self.certificate is not None or self.behind_proxy or self.address is None:
            return True
        host, _ = split_address(self.address)
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


class SessionSettings(Section):
    """How a terminal is spoken to."""

    heartbeat_seconds: float = Field(default=900.0, gt=0, le=86_400)
    """the longest time between two heartbeats of any terminal here (AFN04 F1: commonly 1 to 15 minutes)"""
    missed_heartbeats: int = Field(default=3, ge=1, le=100)
    """so many heartbeats without a frame close the connection"""
    login_deadline_seconds: float = Field(default=30.0, gt=0, le=600)
    takeover_listen_seconds: float = Field(default=30.0, ge=0, le=600)
    """an older connection is listened to so long after a new login"""
    reply_timeout_seconds: float = Field(default=30.0, gt=0, le=600)
    repeats: int = Field(default=2, ge=0, le=10)
    """of reads; nothing else is ever repeated"""
    read_buffer_bytes: int = Field(default=65_536, ge=16_391, le=4_194_304)
    """held for one peer; one frame is at most 16,391 bytes"""
    unknown_terminals: Literal["answer", "refuse"] = "answer"
    """a terminal that is not in the assets is answered and listed, not asked; or its link is closed"""
    clock_tolerance_seconds: float = Field(default=300.0, gt=0, le=86_400)
    clock_policy: Literal["alarm", "correct"] = "alarm"
    """a clock that is off by more is alarmed; `correct` also sets it, never across a midnight"""
    fetch_events: bool = True
    """ask terminals for the events that they say wait; those they send unasked are filed in any case"""
    forward_message_timeout_seconds: int = Field(default=30, ge=1, le=127)
    """how long a terminal may wait for a meter (AFN10 F1)"""
    forward_margin_seconds: float = Field(default=30.0, ge=0, le=600)
    """how much longer than that its answer is waited for: the way up and down"""
    relay_carrier_timeout_seconds: int = Field(default=60, ge=1, le=127)
    """as forward_message_timeout_seconds, for relay work behind carrier or radio (port 31)"""
    relay_wire_timeout_seconds: int = Field(default=5, ge=1, le=127)
    """and behind any other port"""
    relay_margin_seconds: float = Field(default=30.0, ge=1, le=120)
    """how much longer than those its answer is waited for"""
    relay_pauses_reading: bool = False
    """have the terminal stop reading meters on a port while one behind it is switched"""


class CollectionSettings(Section):
    """The midnight reading."""

    enabled: bool = True
    """the schedule; `lingdian collect` works without it"""
    passes: tuple[time, ...] = (time(1, 30), time(4, 0), time(6, 30))
    """Shanghai time; after the last one every `then_every_minutes` until all is there"""
    then_every_minutes: int = Field(default=60, ge=1, le=1440)
    days_back: int = Field(default=7, ge=1, le=62)
    points_per_request: int = Field(default=16, ge=1, le=64)
    """the most; halved on denial or silence, and never more than the terminal's buffer holds"""
    terminals_at_once: int = Field(default=500, ge=1, le=20_000)
    direct_reads_per_terminal_hour: int = Field(default=30, ge=0, le=1000)
    """meters asked through AFN10, which is slow and holds the channel"""
    daytime_begin: time = time(8, 0)
    daytime_end: time = time(20, 0)
    """direct reads by schedule only between these"""
    backoff_seconds: float = Field(default=30.0, gt=0, le=3600)
    """before a terminal that failed is asked again; doubled each time, with jitter"""
    backoff_limit_seconds: float = Field(default=900.0, gt=0, le=86_400)
    on_demand_seconds: float = Field(default=1800.0, gt=0, le=86_400)
    """the longest that `lingdian collect` waits for what is missing"""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.passes or list(self.passes) != sorted(set(self.passes)):
            raise ValueError("passes must be at least one time of day, rising")
        if self.daytime_begin >= self.daytime_end:
            raise ValueError("daytime_begin must be before daytime_end")
        if self.backoff_limit_seconds < self.backoff_seconds:
            raise ValueError("backoff_limit_seconds must not be less than backoff_seconds")
        return self


class ProfileSettings(Section):
    """How one kind of terminal differs, by the name that the assets use. It changes the built-in profile of
    that name, or is a new one; what is left out is as in `base`, and in the end as elsewhere in the
    settings."""

    base: str | None = None
    """the profile that it differs from; by default `standard-2013`"""
    td_d_names: Literal["ended_day", "freeze_day"] | None = None
    """which date Td_d gives a midnight: the day that ended (most), or the day that it opens"""
    confirm_form: Literal["F1", "F3"] | None = None
    reply_timeout_seconds: float | None = Field(default=None, gt=0, le=600)
    store_days: int | None = Field(default=None, ge=1, le=400)
    """for how many days the terminal keeps its frozen values"""
    keeps_values: bool | None = None
    """false: it keeps none, and its meters are asked themselves, at any hour and without the hourly limit"""
    clock_tolerance_seconds: float | None = Field(default=None, gt=0, le=86_400)
    points_per_request: int | None = Field(default=None, ge=1, le=64)
    fcv: bool | None = None
    """mark the bit valid that turns with each request"""
    password_scheme: Literal["none", "fixed", "crc16"] | None = None
    """how writes are authenticated (AFN04 F5)"""
    password: SecretStr | None = None
    """16 bytes in hex, in Q/GDW 130-2005 2: the fixed one"""
    crc_polynomial: int | None = Field(default=None, ge=0, le=0xFFFF)
    crc_seed: int | None = Field(default=None, ge=0, le=0xFFFF)
    crc_reflected: bool | None = None
    crc_xor_out: int | None = Field(default=None, ge=0, le=0xFFFF)
    crc_place: Literal["first-low", "first-high", "last-low", "last-high"] | None = None
    edition: Literal["2005", "2009", "2013"] | None = None
    """which standard's layouts hold where they differ"""
    variants: dict[str, str] | None = None
    """further layouts about which terminals differ, by name"""

    def row(self) -> dict[str, object]:
        """What is set, in the words of the protocol's own table."""
        return {
            _DIALECT_WORDS.get(name, name): value.get_secret_value()
            if isinstance(value, SecretStr)
            else value
            for name, value in self
            if value is not None
        }


_DIALECT_WORDS: Final = {
    "reply_timeout_seconds": "reply_timeout_s",
    "clock_tolerance_seconds": "clock_tolerance_s",
    "points_per_request": "points_a_request",
}


class MeterSettings(Section):
    """How one kind of meter is switched, by the profile name that the assets use. `default` holds for
    profiles that are not here, and for what one leaves out."""

    base: str | None = None
    """the dialect of DL/T 645 that it starts from; by default `standard-2007`"""
    level: Literal["02", "03", "04", "98"] | None = None
    """02 to 04: in plain, with the password; 98: sealed by the crypto machine"""
    password: SecretStr | None = None
    """six digits; better in `password_file` or in the environment"""
    password_file: Path | None = None
    operator: str | None = Field(default=None, pattern="^[0-9]{8}$")
    """eight digits that the meter keeps in its record of the switching"""
    status_word: bool | None = None
    """ask for a status word in the answer to a sealed command"""
    sealed_order: Literal["reversed", "as_given"] | None = None

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("give password or password_file, not both")
        if self.password is not None and not _PASSWORD.fullmatch(self.password.get_secret_value()):
            raise ValueError("password must be six digits")
        return self

    def row(self) -> dict[str, object]:
        """What is set, in the words of `session.settings.MeterProfile`. ConfigurationError where the file
        cannot be read or holds no password."""
        told = {name: value for name, value in self if value is not None}
        told.pop("password_file", None)
        if self.password is not None:
            told["password"] = self.password.get_secret_value()
        elif self.password_file is not None:
            told["password"] = _password_in(self.password_file)
        return told


_PASSWORD: Final = re.compile("[0-9]{6}")


def _password_in(file: Path) -> str:
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the password file 无法读取密码文件 {file}: {error}") from error
    if not _PASSWORD.fullmatch(text):
        raise ConfigurationError(f"{file} does not hold six digits 密码应为六位数字")
    return text


class SecuritySettings(Section):
    """Who makes the ciphers that meters with a security chip want."""

    production: bool = True
    """refuse what is for a bench only: a software module, and a module without TLS"""
    module: Literal["none", "tcp", "software"] = "none"
    """an external crypto machine, or the bench's own software, which opens simulated meters only"""
    address: Address | None = None
    """of the crypto machine"""
    timeout_seconds: float = Field(default=5.0, gt=0, le=60)
    """for connecting to it and for each of its answers"""
    ca_file: Path | None = None
    """who signed its certificate; without it the connection is not encrypted"""
    certificate_file: Path | None = None
    certificate_key_file: Path | None = None
    """ours, where it wants one"""
    key_file: Path | None = None
    """32 hex digits: master key of the software module"""
    key: SecretStr | None = None
    """the same, from the environment"""


class ControlSettings(Section):
    """Relay commands: when trips may leave, and how many. What is refused here is refused for trips only."""

    enabled: bool = True
    from_hour: time = time(8)
    to_hour: time = time(16)
    """wall clock in Shanghai, half open; on working days that are not before a holiday"""
    any_day: bool = False
    """weekends and holidays too; for the bench"""
    calendar_file: Path | None = None
    """holidays and shifted working days by year; without it those that come with the program"""
    area_limit: int = Field(default=50, ge=0, le=100_000)
    requester_limit: int = Field(default=500, ge=0, le=1_000_000)
    limit: int = Field(default=500, ge=0, le=1_000_000)
    """trips of one area, of one requester, and in all within the window, until two persons set others"""
    window_minutes: int = Field(default=60, ge=1, le=24 * 60)
    trip_hours: float = Field(default=24.0, gt=0, le=31 * 24)
    """a trip that names no expiry is given up after this"""
    notice_needed: bool = True
    without_notice: frozenset[str] = frozenset()
    """meter profiles for which no notice reference is wanted"""
    trust_own_clock: bool = False
    """send trips although the kernel does not know of a time service that keeps our clock"""
    billing_url: str | None = None
    """asked just before each trip whether the customer still owes; without it nobody is asked"""
    billing_secret: SecretStr | None = None
    """signs that question"""
    billing_timeout_seconds: float = Field(default=5.0, gt=0, le=60)

    @model_validator(mode="after")
    def _hours(self) -> Self:
        if self.from_hour >= self.to_hour:
            raise ValueError("from_hour must lie before to_hour")
        if (self.billing_url is None) is not (self.billing_secret is None):
            raise ValueError("billing_url and billing_secret are set together or not at all")
        return self


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"
    """auto: text on a screen, JSON elsewhere"""


class ClockSettings(Section):
    """For the bench only: a night that begins at `start` and runs `speed` times as fast."""

    start: datetime | None = None
    origin: float | None = Field(default=None, ge=0)
    """the real instant (seconds since 1970) at which it shows `start`; by default when the gateway starts"""
    speed: float = Field(default=1.0, gt=0, le=100_000)

    @model_validator(mode="after")
    def _aware(self) -> Self:
        if self.start is not None and self.start.tzinfo is None:
            raise ValueError("start needs its offset, such as 2026-11-24T00:00:00+08:00")
        return self


class Settings(BaseSettings):
    """All sections. Build it with `load`."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter=SECTION_MARK, frozen=True, extra="forbid"
    )

    database: DatabaseSettings = DatabaseSettings()
    listen: ListenSettings = ListenSettings()
    dial: dict[str, DialSettings] = Field(default_factory=dict)
    lines: dict[str, LineSettings] = Field(default_factory=dict)
    modems: dict[str, ModemSettings] = Field(default_factory=dict)
    mqtt: dict[str, BrokerSettings] = Field(default_factory=dict)
    http: HttpSettings = HttpSettings()
    session: SessionSettings = SessionSettings()
    collection: CollectionSettings = CollectionSettings()
    profiles: dict[str, ProfileSettings] = Field(default_factory=dict)
    meters: dict[str, MeterSettings] = Field(default_factory=dict)
    security: SecuritySettings = SecuritySettings()
    control: ControlSettings = ControlSettings()
    log: LogSettings = LogSettings()
    clock: ClockSettings = ClockSettings()


_NAMED: Final[dict[str, type[BaseModel]]] = {
    "profiles": ProfileSettings,
    "meters": MeterSettings,
    "dial": DialSettings,
    "lines": LineSettings,
    "modems": ModemSettings,
    "mqtt": BrokerSettings,
}
"""Sections of which there may be many, each under a name of its own."""


def load(file: Path | None = None, **sections: Any) -> Settings:
    """Settings from `file` (TOML), the environment over it, `sections` (from the command line) over both.

    Raises ConfigurationError that names the key, the place it was set and what is allowed.
    """
    from_file = _read(file) if file is not None else {}
    _refuse_unknown_environment()

    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, from_file)

    try:
        settings = Layered(**sections)
    except ValidationError as error:
        lines = "\n".join(_explain(error, from_file, file))
        raise ConfigurationError(f"the settings are not right 配置有误:\n{lines}") from error
    except ValueError as error:  # pydantic-settings: an environment value that is no JSON where one is needed
        raise ConfigurationError(f"the environment cannot be read 环境变量有误: {error}") from error
    return settings


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the settings file 无法读取配置文件 {file}: {error.strerror}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not TOML 不是有效的 TOML: {error}") from error


def _refuse_unknown_environment() -> None:
    """A mistyped section in a variable's name would otherwise be passed over in silence."""
    for name in os.environ:
        if name.startswith(ENVIRONMENT_PREFIX) and SECTION_MARK in name:
            section = name.removeprefix(ENVIRONMENT_PREFIX).split(SECTION_MARK)[0].lower()
            if section not in Settings.model_fields:
                known = ", ".join(Settings.model_fields)
                raise ConfigurationError(f"{name}: no section {section!r}; there are: {known}")


def _explain(error: ValidationError, from_file: dict[str, Any], file: Path | None) -> Iterator[str]:
    """One line for each wrong key: where it stands, the value, and what is allowed."""
    for fault in error.errors(include_url=False):
        path = [str(part) for part in fault["loc"]]
        variable = ENVIRONMENT_PREFIX + SECTION_MARK.join(part.upper() for part in path)
        if variable in os.environ:
            where = f"environment {variable}"
        elif file is not None and _holds(from_file, path):
            where = str(file)
        else:
            where = "command line"
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = f"no such key; there are: {', '.join(_known_keys(path[:-1]))}"
        elif path[-1] not in ("url", "password") and not isinstance(fault["input"], dict):
            message = f"{message} (found {str(fault['input'])[:80]!r})"
        yield f"  {'.'.join(path)} [{where}]: {message}"


def _holds(tree: Any, path: list[str]) -> bool:
    for part in path:
        if not isinstance(tree, dict) or part not in tree:
            return isinstance(tree, list)
        tree = tree[part]
    return True


def _known_keys(path: list[str]) -> list[str]:
    """Keys that may stand under `path` (empty: the sections)."""
    if not path:
        return list(Settings.model_fields)
    section = Settings.model_fields[path[0]].annotation if path[0] in Settings.model_fields else None
    section = _NAMED.get(path[0], section)
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []
