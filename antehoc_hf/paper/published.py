"""The numbers that the paper prints, to be set against ours.

Guna R T, Benitez, Sikha, "Ante-Hoc Generation of Task-Agnostic Interpretation Maps", XAI4CV 2023, Tables 1 to 5. All
at 128 × 128 pixels; percent. Seeds, spread and a plain network are not given there.
"""

Numbers = tuple[float, ...]

_METHODS = ("grad-cam", "grad-cam++", "score-cam", "antehoc")


def _by_method(*rows: Numbers) -> dict[str, Numbers]:
    return dict(zip(_METHODS, rows, strict=True))


# Data set → method → (Drop, Inc, Win).
ENERGY_MAPS: dict[str, dict[str, Numbers]] = {
    "cifar10": _by_method((83.86, 38.5, 13), (57.28, 47.4, 26), (33.68, 62.76, 29), (23.25, 72.79, 37)),
    "animals10": _by_method((32.47, 15.55, 20), (27.34, 16.74, 22), (30.85, 13.23, 26), (19.24, 16.81, 34)),
    "food11": _by_method((61.18, 65.74, 59), (62.56, 66.42, 64), (60.90, 63.87, 58), (59.2, 65.98, 67)),
    "tiny-imagenet": _by_method((82.67, 57.08, 19), (80.65, 62.18, 24), (82.87, 59.12, 18), (78.14, 67.21, 33)),
}
BINARISED: dict[str, dict[str, Numbers]] = {
    "cifar10": _by_method((85.03, 21.48, 16), (67.71, 20.48, 27), (65.43, 32.74, 38), (22.61, 63.08, 45)),
    "animals10": _by_method((84.53, 28.76, 32), (78.19, 37.64, 39), (79.27, 42.45, 41), (70.50, 50.54, 48)),
    "food11": _by_method((88.91, 63.4, 33), (78.56, 65.0, 35), (84.75, 44.56, 27), (76.23, 74.67, 33)),
    "tiny-imagenet": _by_method((87.47, 39.60, 13), (84.58, 43.98, 21), (78.54, 29.71, 7), (80.56, 48.33, 28)),
}
# Data set → network → accuracy, ResNet-18.
ACCURACY: dict[str, dict[str, float]] = {
    "animals10": {"senn": 82.64, "cbah": 87.35, "antehoc": 90.56},
    "cifar10": {"senn": 84.50, "cbah": 82.14, "antehoc": 90.86},
    "food11": {"senn": 75.84, "cbah": 73.54, "antehoc": 84.32},
    "tiny-imagenet": {"senn": 33.85, "cbah": 35.64, "antehoc": 38.82},
}
# Method → (Drop, Inc), Flickr8k.
CAPTIONS: dict[str, Numbers] = _by_method((45.31, 12.25), (43.68, 13.88), (32.40, 10.28), (27.93, 14.12))
# Share of noisy pixels → method → (CD, CI), mean of the classification sets.
STABILITY: dict[float, dict[str, Numbers]] = {
    0.1: {"grad-cam": (5.67, 3.85), "grad-cam++": (4.85, 4.62), "antehoc": (4.12, 3.28)},
    0.2: {"grad-cam": (8.60, 4.82), "grad-cam++": (5.22, 5.94), "antehoc": (5.38, 3.72)},
    0.3: {"grad-cam": (7.54, 2.78), "grad-cam++": (8.42, 4.84), "antehoc": (7.48, 4.36)},
    0.4: {"grad-cam": (9.38, 7.84), "grad-cam++": (7.34, 6.16), "antehoc": (12.78, 8.15)},
    0.5: {"grad-cam": (14.88, 9.58), "grad-cam++": (10.68, 8.56), "antehoc": (15.90, 12.24)},
}
