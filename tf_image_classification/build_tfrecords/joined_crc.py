"""CRC-32C of joined parts, from those of the parts: whoever wrote a part has computed its own.

A CRC is a polynomial modulo that of CRC-32C (RFC 3720, 12.1), its bits reflected: the highest is the coefficient of
x ** 0. Bytes that follow multiply it by x ** 8 each.
"""

from __future__ import annotations

import functools

_POLYNOMIAL = 0x82F63B78
_ONE, _X = 1 << 31, 1 << 30


def joined(crc: int, following: int, num_bytes: int) -> int:
    """The CRC-32C of two parts.

    Args:
        crc: of the first.
        following: of the second.
        num_bytes: of the second.
    """
    bit = 3  # a byte is x ** 8
    while num_bytes:
        if num_bytes & 1:
            crc = _product(crc, _power_of_two(bit))
        num_bytes, bit = num_bytes >> 1, bit + 1
    return crc ^ following


@functools.cache
def _power_of_two(exponent: int) -> int:
    """x ** (2 ** exponent)."""
    if exponent == 0:
        return _X
    root = _power_of_two(exponent - 1)
    return _product(root, root)


def _product(a: int, b: int) -> int:
    product, bit = 0, _ONE
    while bit:
        if a & bit:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
        bit >>= 1
    return product
