"""A study's figures: each a function of the runs that draws on an `ax` and returns it, or makes a new figure.

    from analysis import figures, load

    ax = figures.learning_curve(load("runs"), "crd_attention", "crd_attention")
    figures.save(ax.figure, Path("curve.pdf"))

Each drawing function has a `..._data` function that computes what it draws. `importance.importance` and
`attention_maps.attention_maps` are not imported here because they load Optuna and torch.
"""

from analysis.figures.confusion import confusion, confusion_data
from analysis.figures.forest import forest, forest_data
from analysis.figures.learning import learning_curve, learning_curve_data
from analysis.figures.parallel import parallel_coordinates, parallel_coordinates_data
from analysis.figures.style import house_style, save
from analysis.figures.tuning import best_so_far, best_so_far_data, slices, tuning_data

__all__ = [
    "best_so_far",
    "best_so_far_data",
    "confusion",
    "confusion_data",
    "forest",
    "forest_data",
    "house_style",
    "learning_curve",
    "learning_curve_data",
    "parallel_coordinates",
    "parallel_coordinates_data",
    "save",
    "slices",
    "tuning_data",
]
