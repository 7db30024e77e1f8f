"""The cache's byte layout for NumPy and CuPy: packs plain K and V as `common/cache.cuh` reads them.

Plain K and V are [..., page_tokens, head_dim]; a packed page of one KV head is the last axis, in
bytes. One rule: every place comes from the same arithmetic as in the CUDA header.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

VALUE_GROUP = 32
"""Channels that share a token's scale of V in the 4-bit layout."""


def tile_tokens(page_tokens: int, bits: int) -> int:
    """Tokens of a tile: what one bulk copy brings, and K's group in the 4-bit layout."""
    return 32 if bits == 4 and page_tokens % 32 == 0 else 16


def page_bytes(page_tokens: int, head_dim: int, bits: int) -> int:
    """Bytes of one page of one KV head, scales included."""
    return page_tokens // tile_tokens(page_tokens, bits) * _tile_bytes(page_tokens, head_dim, bits)


def pack(k: Any, v: Any, bits: int) -> Any:
    """Packed pages, uint8 [..., page_bytes].

    16 bits: *k* and *v* of a 16-bit dtype (bf16 as uint16). 8 and 4 bits: float32, quantised here.
    """
    if k.shape != v.shape or k.shape[-1] not in (64, 128) or k.shape[-2] % 16:
        raise ValueError(f"pack: k {k.shape}, v {v.shape}: [..., multiple of 16, 64 or 128]")
    match bits:
        case 16:
            return pack16(k, v)
        case 8:
            return pack8(*quantise8(k), *quantise8(v))
        case 4:
            return pack4(quantise4(k, v))
    raise ValueError(f"pack: {bits} bits, expected 16, 8 or 4")


def unpack(pages: Any, page_tokens: int, head_dim: int, bits: int) -> tuple[Any, Any]:
    """K and V of packed *pages*: 16-bit words as uint16, 8 and 4 bits dequantised to float32."""
    p = places(page_tokens, head_dim, bits, _module(pages))
    if bits == 16:
        words = pages.view(np.uint16)
        return words[..., p.k], words[..., p.v]
    if bits == 8:
        scale = pages.view(np.float32)
        k, v = (pages[..., at].astype(np.float32) - 128 for at in (p.k, p.v))
        return k * scale[..., p.k_scale // 4], v * scale[..., p.v_scale // 4]
    k, v = ((pages[..., at // 2] >> (at % 2 * 4).astype(np.uint8) & 15) for at in (p.k, p.v))
    half = pages.view(np.float16)
    ks, vs = p.k_scale // 2, p.v_scale // 2
    return (
        k.astype(np.float32) * half[..., ks] + half[..., ks + 4],
        v.astype(np.float32) * half[..., vs] + half[..., vs + 4],
    )


# -------------------------------------------------------------------------------------- places
@dataclass(frozen=True, slots=True)
class Places:
    """Where each value of a page stands, int64 [page_tokens, head_dim].

    `k`, `v` count elements: 16-bit words, bytes or nibbles. `k_scale`, `v_scale` count bytes; of 8
    bits they are [page_tokens, 1], of 4 bits the zero stands 8 bytes after the scale.
    """

    k: Any
    v: Any
    k_scale: Any
    v_scale: Any


def places(page_tokens: int, head_dim: int, bits: int, xp: Any = np) -> Places:
    """The places of a page's values, as arrays of the module *xp*."""
    token = xp.arange(page_tokens)[:, None]
    channel = xp.arange(head_dim)[None]
    tile, size = tile_tokens(page_tokens, bits), _tile_bytes(page_tokens, head_dim, bits)
    row, block = token % 16, tile * head_dim * bits // 8
    base = token // tile * size
    if bits == 4:
        word = (token % tile // 16 * (head_dim // 64) + channel // 64) * 32
        at, quad = channel % 16, channel % 64 // 16
        k_lane, k_register = row % 8 * 4 + at // 4, at % 4 // 2 * 2 + row // 8
        v_lane, v_register = at % 8 * 4 + row % 8 // 2, row // 8 * 2 + at // 8
        group = token % tile // 16 * (head_dim // VALUE_GROUP) + channel // VALUE_GROUP
        scale = base + 2 * block
        return Places(
            2 * base + ((word + k_lane) * 4 + quad) * 8 + k_register + at % 2 * 4,
            2 * (base + block) + ((word + v_lane) * 4 + quad) * 8 + v_register + row % 2 * 4,
            scale + channel // 4 * 16 + channel % 4 * 2,
            scale + head_dim * 4 + group * 64 + row % 8 // 2 * 16 + row // 8 * 4 + row % 2 * 2,
        )
    chunk = 128 // bits  # values in 16 bytes
    rows, chunks = max(1, 128 * 8 // bits // head_dim), min(8, head_dim // chunk)
    swizzled = channel // chunk ^ row // rows % chunks
    element = bits // 8
    k = base // element + row * head_dim + swizzled * chunk + channel % chunk
    scale = base + 2 * block + row * 4
    return Places(k, k + tile * head_dim, scale, scale + 64)


def _tile_bytes(page_tokens: int, head_dim: int, bits: int) -> int:
    tile = tile_tokens(page_tokens, bits)
    scales = {16: 0, 8: 8 * tile, 4: 4 * head_dim + 4 * tile * head_dim // VALUE_GROUP}[bits]
    return 2 * tile * head_dim * bits // 8 + scales


# -------------------------------------------------------------------------------------- packing
def pack16(k: Any, v: Any) -> Any:
    """Packed pages, uint8, from 16-bit *k* and *v*."""
    tokens, width = k.shape[-2:]
    xp = _module(k)
    p = places(tokens, width, 16, xp)
    out = xp.empty((*k.shape[:-2], 2 * tokens * width), np.uint16)
    out[..., p.k], out[..., p.v] = k.view(np.uint16), v.view(np.uint16)
    return out.view(np.uint8)


def pack8(k: Any, k_scale: Any, v: Any, v_scale: Any) -> Any:
    """Packed pages from bytes and scales of `quantise8`."""
    tokens, width = k.shape[-2:]
    xp = _module(k)
    p = places(tokens, width, 8, xp)
    out = xp.empty((*k.shape[:-2], page_bytes(tokens, width, 8)), np.uint8)
    out[..., p.k], out[..., p.v] = k, v
    scale = out.view(np.float32)
    scale[..., p.k_scale[:, 0] // 4] = k_scale
    scale[..., p.v_scale[:, 0] // 4] = v_scale
    return out


def pack4(q: dict[str, Any]) -> Any:
    """Packed pages from what `quantise4` made."""
    k = q["k"]
    tokens, width = k.shape[-2:]
    xp = _module(k)
    p, size = places(tokens, width, 4, xp), page_bytes(tokens, width, 4)
    nibbles = xp.zeros((*k.shape[:-2], 2 * size), np.uint8)
    nibbles[..., p.k], nibbles[..., p.v] = k, q["v"]
    out = nibbles[..., ::2] | nibbles[..., 1::2] << 4
    half, tile = out.view(np.float16), tile_tokens(tokens, 4)
    ks, vs = p.k_scale[::tile] // 2, p.v_scale[:, ::VALUE_GROUP] // 2
    half[..., ks], half[..., ks + 4] = q["k_scale"], q["k_zero"]
    half[..., vs], half[..., vs + 4] = q["v_scale"], q["v_zero"]
    return out


# -------------------------------------------------------------------------------------- quantising
def quantise8(x: Any) -> tuple[Any, Any]:
    """Bytes (value + 128) like *x* and float32 scales [..., tokens]: one scale a token."""
    scale = (abs(x).max(axis=-1).astype(np.float32) / np.float32(127)).clip(1e-20)
    return ((x / scale[..., None]).round() + 128).clip(1, 255).astype(np.uint8), scale


def quantise4(k: Any, v: Any) -> dict[str, Any]:
    """Nibbles, scales and zeros: K a channel in a tile's tokens, V a token in 32 channels.

    `k`, `v` uint8 shaped as the inputs; `k_scale`, `k_zero` float16 [..., tiles, head_dim];
    `v_scale`, `v_zero` float16 [..., page_tokens, head_dim / 32].
    """
    lead, (tokens, width) = k.shape[:-2], k.shape[-2:]
    tile = tile_tokens(tokens, 4)
    k4, k_scale, k_zero = _affine(k.reshape(*lead, tokens // tile, tile, width), -2)
    v4, v_scale, v_zero = _affine(v.reshape(*lead, tokens, width // VALUE_GROUP, VALUE_GROUP), -1)
    return {
        "k": k4.reshape(k.shape),
        "v": v4.reshape(v.shape),
        "k_scale": k_scale,
        "k_zero": k_zero,
        "v_scale": v_scale,
        "v_zero": v_zero,
    }


def _affine(x: Any, axis: int) -> tuple[Any, Any, Any]:
    """Nibbles, scale and zero along *axis*: zero is the least value, scale range / 15.

    Both are rounded to fp16 first, and nibbles are chosen for the rounded ones.
    """
    zero = x.min(axis=axis, keepdims=True).astype(np.float16)
    span = x.max(axis=axis, keepdims=True) - zero.astype(np.float32)
    scale = (span / np.float32(15)).clip(1e-6).astype(np.float16)
    nibbles = ((x - zero.astype(np.float32)) / scale.astype(np.float32)).round().clip(0, 15)
    return nibbles.astype(np.uint8), scale.squeeze(axis), zero.squeeze(axis)


def _module(array: Any) -> Any:
    """NumPy, or CuPy for its arrays."""
    if isinstance(array, np.ndarray):
        return np
    import cupy

    return cupy
