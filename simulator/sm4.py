"""The block cipher SM4 (GB/T 32907-2016) in plain Python: enough for a bench, far too slow for anything else.

It runs in time that depends on the key: never use it where somebody could measure that.
"""

from __future__ import annotations

from struct import Struct

BLOCK = 16

_SBOX = bytes.fromhex(
    "d690e9fecce13db716b614c228fb2c052b679a762abe04c3aa44132649860699"
    "9c4250f491ef987a33540b43edcfac62e4b31ca9c908e89580df94fa758f3fa6"
    "4707a7fcf37317ba83593c19e6854fa8686b81b27164da8bf8eb0f4b70569d35"
    "1e240e5e6358d1a225227c3b01217887d40046579fd327524c3602e7a0c4c89e"
    "eabf8ad240c738b5a3f7f2cef96115a1e0ae5da49b341a55ad933230f58cb1e3"
    "1df6e22e8266ca60c02923ab0d534e6fd5db3745defd8e2f03ff6a726d6c5b51"
    "8d1baf92bbddbc7f11d95c411f105ad80ac13188a5cd7bbd2d74d012b8e5b4b0"
    "8969974a0c96777e65b9f109c56ec68418f07dec3adc4d2079ee5f3ed7cb3948"
)
_FK = (0xA3B1BAC6, 0x56AA3350, 0x677D9197, 0xB27022DC)
_CK = tuple(int.from_bytes(bytes((4 * i + j) * 7 & 0xFF for j in range(4)), "big") for i in range(32))
_WORDS = Struct(">4I")


def _turned(word: int, by: int) -> int:
    return (word << by | word >> (32 - by)) & 0xFFFFFFFF


def _spread(word: int) -> int:
    """L of the rounds."""
    return word ^ _turned(word, 2) ^ _turned(word, 10) ^ _turned(word, 18) ^ _turned(word, 24)


# S-box and L of a round in one look-up for each byte of a word, highest byte first.
_ROUND = tuple(tuple(_spread(_SBOX[byte] << shift) for byte in range(256)) for shift in (24, 16, 8, 0))


def _key_step(word: int) -> int:
    mixed = int.from_bytes(word.to_bytes(4, "big").translate(_SBOX), "big")
    return mixed ^ _turned(mixed, 13) ^ _turned(mixed, 23)


class Sm4:
    """One key of 16 bytes. ValueError for any other length, of a key or of a block."""

    def __init__(self, key: bytes) -> None:
        if len(key) != BLOCK:
            raise ValueError(f"an SM4 key has {BLOCK} bytes, not {len(key)}")
        words = [word ^ fixed for word, fixed in zip(_WORDS.unpack(key), _FK, strict=True)]
        for number in range(32):
            words.append(words[-4] ^ _key_step(words[-3] ^ words[-2] ^ words[-1] ^ _CK[number]))
        self._rounds = tuple(words[4:])

    def encrypt(self, block: bytes) -> bytes:
        """One block."""
        return _crypt(self._rounds, block)

    def decrypt(self, block: bytes) -> bytes:
        """One block."""
        return _crypt(self._rounds[::-1], block)


def _crypt(rounds: tuple[int, ...], block: bytes) -> bytes:
    if len(block) != BLOCK:
        raise ValueError(f"an SM4 block has {BLOCK} bytes, not {len(block)}")
    a, b, c, d = _WORDS.unpack(block)
    first, second, third, fourth = _ROUND
    for key in rounds:
        mixed = b ^ c ^ d ^ key
        new = (
            a
            ^ first[mixed >> 24]
            ^ second[mixed >> 16 & 0xFF]
            ^ third[mixed >> 8 & 0xFF]
            ^ fourth[mixed & 0xFF]
        )
        a, b, c, d = b, c, d, new
    return _WORDS.pack(d, c, b, a)
