"""States of neurons made up for tests, of a class difference that is known."""

import numpy as np

from dclib.explain.neurons import States


def make_states(activations, labels, pull, groups=None, **changes):
    """`States` of given activations (N, K), below 0 where off, with K pulls, half on each class."""
    activations, labels, pull = np.asarray(activations, float), np.asarray(labels), np.array(pull)
    n, k = activations.shape
    groups = np.arange(n) if groups is None else groups
    ids = [f"test/{'un' * label}happy/{i:04d}.jpg" for i, label in enumerate(labels.astype(int))]
    contributions = pull * np.maximum(activations, 0)
    fields = {
        "ids": np.array(ids),
        "groups": np.array([f"g{group}" for group in groups]),
        "sources": np.full(n, ""),
        "labels": labels.astype(bool),
        "z": activations,
        "by_level": np.stack([activations - 1, np.zeros((n, k))], 2),
        "cells": np.zeros((n, k, 2), int),
        "on_faces": np.full((n, k), np.nan),
        "face_area": np.full(n, np.nan),
        "maps": np.zeros((k, 3, 3)),
        "weights": np.stack([-pull / 2, pull / 2]),
        "const": -contributions.sum(1).mean(),
        "levels": (2, 1),
        "threshold": 0.5,
        "split": "test",
        "size": 96,
    }
    return States(**fields | changes)


def simulate(pull, moved, n=120, seed=0):
    """Neurons with mean 5 whose activation is larger by `moved` (K,) on unhappy pictures."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % 2 == 1
    noise = rng.standard_normal((n, len(pull)))
    return make_states(5 + noise + labels[:, None] * np.array(moved, float), labels, pull)
