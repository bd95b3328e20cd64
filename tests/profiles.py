"""Colour profiles (ICC, version 2) written byte by byte, for tests only."""

import struct

import numpy as np

D50, D65 = (0.9642, 1.0, 0.8249), (0.9505, 1.0, 1.089)
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
INKS = {  # Lab of ink on paper, by (C, M, Y), as printed
    (0, 0, 0): (100, 0, 0),
    (1, 0, 0): (55, -37, -50),
    (0, 1, 0): (48, 74, -3),
    (0, 0, 1): (89, -5, 93),
    (0, 1, 1): (47, 68, 48),
    (1, 0, 1): (50, -68, 33),
    (1, 1, 0): (24, 22, -46),
    (1, 1, 1): (23, 0, 0),
}


def profile(kind, space, connection, tags):
    """A header and a table of tags."""
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)} | tags
    at, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"none", 0x02400000, kind, space, connection)
    return head + bytes(12) + b"acsp" + bytes(28) + fixed(D50) + bytes(48) + table + body


def fixed(values):
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def curve(gamma):
    return b"curv" + bytes(4) + struct.pack(">IHxx", 1, round(gamma * 256))


def rgb(primaries, gamma, white=D65):
    """A screen's: x and y of red, green and blue, adapted to D50."""
    x, y = np.array(primaries).reshape(3, 2).T
    light = np.array([x / y, np.ones(3), (1 - x - y) / y])
    light *= np.linalg.solve(light, white)
    cones = np.diag(BRADFORD @ D50 / (BRADFORD @ white))
    light = np.linalg.inv(BRADFORD) @ cones @ BRADFORD @ light
    tags = {b"wtpt": b"XYZ " + bytes(4) + fixed(D50)}
    for name, column in zip("rgb", light.T):
        tags[f"{name}XYZ".encode()] = b"XYZ " + bytes(4) + fixed(column)
        tags[f"{name}TRC".encode()] = curve(gamma)
    return profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey(gamma):
    tags = {b"wtpt": b"XYZ " + bytes(4) + fixed(D50), b"kTRC": curve(gamma)}
    return profile(b"mntr", b"GRAY", b"XYZ ", tags)


def cmyk():
    """A press: the colours of `INKS`, darkened by black."""
    corners = []
    for c, m, y, k in np.ndindex(2, 2, 2, 2):
        lightness, a, b = (np.array(INKS[c, m, y]) if not k else np.array((10, 0, 0))).tolist()
        corners += [round(lightness * 2.55), a + 128, b + 128]
    ramp = bytes(range(256))
    head = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + fixed(np.eye(3).ravel())
    table = head + 4 * ramp + bytes(corners) + 3 * ramp
    return profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})
