"""The numbers that the paper prints, to be set against ours.

Guna R T, Benitez, Sikha, "Ante-Hoc Generation of Task-Agnostic Interpretation Maps", XAI4CV 2023, Tables 1 to 5. All
at 128 × 128 pixels; percent. Seeds, spread and a plain network are not given there.
"""

Numbers = tuple[float, ...]

# Data set → method → (Drop, Inc, Win).
ENERGY_MAPS: dict[str, dict[str, Numbers]] = {
    "cifar10": {
        "grad-cam": (83.86, 38.5, 13),
        "grad-cam++": (57.28, 47.4, 26),
        "score-cam": (33.68, 62.76, 29),
        "antehoc": (23.25, 72.79, 37),
    },
    "animals10": {
        "grad-cam": (32.47, 15.55, 20),
        "grad-cam++": (27.34, 16.74, 22),
        "score-cam": (30.85, 13.23, 26),
        "antehoc": (19.24, 16.81, 34),
    },
    "food11": {
        "grad-cam": (61.18, 65.74, 59),
        "grad-cam++": (62.56, 66.42, 64),
        "score-cam": (60.90, 63.87, 58),
        "antehoc": (59.2, 65.98, 67),
    },
    "tiny-imagenet": {
        "grad-cam": (82.67, 57.08, 19),
        "grad-cam++": (80.65, 62.18, 24),
        "score-cam": (82.87, 59.12, 18),
        "antehoc": (78.14, 67.21, 33),
    },
}
BINARISED: dict[str, dict[str, Numbers]] = {
    "cifar10": {
        "grad-cam": (85.03, 21.48, 16),
        "grad-cam++": (67.71, 20.48, 27),
        "score-cam": (65.43, 32.74, 38),
        "antehoc": (22.61, 63.08, 45),
    },
    "animals10": {
        "grad-cam": (84.53, 28.76, 32),
        "grad-cam++": (78.19, 37.64, 39),
        "score-cam": (79.27, 42.45, 41),
        "antehoc": (70.50, 50.54, 48),
    },
    "food11": {
        "grad-cam": (88.91, 63.4, 33),
        "grad-cam++": (78.56, 65.0, 35),
        "score-cam": (84.75, 44.56, 27),
        "antehoc": (76.23, 74.67, 33),
    },
    "tiny-imagenet": {
        "grad-cam": (87.47, 39.60, 13),
        "grad-cam++": (84.58, 43.98, 21),
        "score-cam": (78.54, 29.71, 7),
        "antehoc": (80.56, 48.33, 28),
    },
}
# Data set → network → accuracy, ResNet-18.
ACCURACY: dict[str, dict[str, float]] = {
    "animals10": {"senn": 82.64, "cbah": 87.35, "antehoc": 90.56},
    "cifar10": {"senn": 84.50, "cbah": 82.14, "antehoc": 90.86},
    "food11": {"senn": 75.84, "cbah": 73.54, "antehoc": 84.32},
    "tiny-imagenet": {"senn": 33.85, "cbah": 35.64, "antehoc": 38.82},
}
# Method → (Drop, Inc), Flickr8k.
CAPTIONS: dict[str, Numbers] = {
    "grad-cam": (45.31, 12.25),
    "grad-cam++": (43.68, 13.88),
    "score-cam": (32.40, 10.28),
    "antehoc": (27.93, 14.12),
}
# Share of noisy pixels → method → (CD, CI), mean of the classification sets.
STABILITY: dict[float, dict[str, Numbers]] = {
    0.1: {"grad-cam": (5.67, 3.85), "grad-cam++": (4.85, 4.62), "antehoc": (4.12, 3.28)},
    0.2: {"grad-cam": (8.60, 4.82), "grad-cam++": (5.22, 5.94), "antehoc": (5.38, 3.72)},
    0.3: {"grad-cam": (7.54, 2.78), "grad-cam++": (8.42, 4.84), "antehoc": (7.48, 4.36)},
    0.4: {"grad-cam": (9.38, 7.84), "grad-cam++": (7.34, 6.16), "antehoc": (12.78, 8.15)},
    0.5: {"grad-cam": (14.88, 9.58), "grad-cam++": (10.68, 8.56), "antehoc": (15.90, 12.24)},
}
