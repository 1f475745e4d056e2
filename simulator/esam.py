"""The security chip of a simulated meter: identity authentication (03H) and ciphertext with MAC (level 98H).

How real chips compute is their makers' secret. This is a scheme of our own, good for a bench and nothing
else; docs/security-module.md describes it, and it is written here a second time, apart from the gateway's
software module, so that a mistake of one is seen by the other.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache

from protocols.dlt645.control import MAC_LENGTH, diversifier
from simulator.sm4 import BLOCK, Sm4

BENCH_KEY = bytes.fromhex("4c696e676469616e2062656e6368206b")
"""Master key of simulated meters that were given no other. It is published: it protects nothing."""

RANDOM_LENGTH = 4
"""Bytes of random 2."""


class Esam:
    """Of one meter. Times are the district's seconds.

    spends_random: a sealed command uses up its authentication, so that it cannot be said twice.
    """

    def __init__(
        self,
        meter_number: str,
        master_key: bytes = BENCH_KEY,
        session_minutes: int = 5,
        spends_random: bool = False,
    ) -> None:
        self.serial = bytes.fromhex(f"4c44{meter_number}")
        self._diversifier = diversifier(meter_number)
        self._authenticating = _meter_key(master_key, b"authenticate", self._diversifier)
        self._enciphering = _meter_key(master_key, b"encipher", self._diversifier)
        self._signing = _meter_key(master_key, b"mac", self._diversifier)
        self._session_s = session_minutes * 60.0
        self._spends_random = spends_random
        self._drawn = 0
        self._random = b""
        self._valid_until = float("-inf")

    def valid(self, now: float) -> bool:
        """Is somebody authenticated?"""
        return bool(self._random) and now < self._valid_until

    def authenticate(self, cipher: bytes, random: bytes, named: bytes, now: float) -> bytes | None:
        """Random 2 for cipher 1 and random 1, all high byte first; None where they do not belong together or
        `named`, the diversifier, is another meter's. A failure ends the session that there was."""
        self.end()
        if len(random) != 8 or named != self._diversifier:
            return None
        whole = self._authenticating.encrypt(random + self._diversifier)
        wanted = bytes(one ^ other for one, other in zip(whole[:8], whole[8:], strict=True))
        if not hmac.compare_digest(wanted, cipher):
            return None
        self._drawn += 1
        # Not guessable on a bench would mean not repeatable.
        self._random = hashlib.sha256(self.serial + self._drawn.to_bytes(8, "big")).digest()[:RANDOM_LENGTH]
        self._valid_until = now + self._session_s
        return self._random

    def end(self) -> None:
        """Nobody is authenticated any more."""
        self._random = b""

    def open(self, sealed: bytes) -> bytes | None:
        """The plaintext of cipher || MAC, high byte first, within a valid session; None: the MAC is wrong."""
        cipher, mac = sealed[:-MAC_LENGTH], sealed[-MAC_LENGTH:]
        if not cipher or len(cipher) % BLOCK or not self._random:
            return None
        if not hmac.compare_digest(self._mac(cipher), mac):
            return None
        key = Sm4(self._enciphering.encrypt(self._fresh()))
        before = bytes(BLOCK)
        padded = b""
        for at in range(0, len(cipher), BLOCK):
            block = cipher[at : at + BLOCK]
            padded += _xor(key.decrypt(block), before)
            before = block
        plain, mark, rest = padded.rpartition(b"\x80")
        if self._spends_random:
            self.end()
        return plain if mark and not any(rest) and len(rest) < BLOCK else None

    def _fresh(self) -> bytes:
        """What makes the keys of this session its own."""
        return self._random + self.serial + bytes(BLOCK - RANDOM_LENGTH - len(self.serial))

    def _mac(self, cipher: bytes) -> bytes:
        key = Sm4(self._signing.encrypt(self._fresh()))
        state = key.encrypt(len(cipher).to_bytes(BLOCK, "big"))
        for at in range(0, len(cipher), BLOCK):
            state = key.encrypt(_xor(state, cipher[at : at + BLOCK]))
        return state[:MAC_LENGTH]


@lru_cache(maxsize=16)
def _purpose_key(master_key: bytes, purpose: bytes) -> Sm4:
    return Sm4(Sm4(master_key).encrypt(purpose.ljust(BLOCK, b"\x00")))


def _meter_key(master_key: bytes, purpose: bytes, named: bytes) -> Sm4:
    """A meter's own key for one purpose, from the master key that all share."""
    inverse = bytes(byte ^ 0xFF for byte in named)
    return Sm4(_purpose_key(master_key, purpose).encrypt(named + inverse))


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
