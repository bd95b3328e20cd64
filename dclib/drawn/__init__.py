"""Drawn couples and films: a free, reproducible data set that looks like the task."""

from dclib.drawn.couples import our_couple, render_couples
from dclib.drawn.film import render_film

__all__ = ["our_couple", "render_couples", "render_film"]
