"""What is measured at which sizes."""

#: Units of each block that SACT uses on average (supplement, table 1), by tau.
OPERATING_POINTS = {
    "224": {
        "tau 0.01": (2.6, 2.4, 4.0, 2.7),
        "tau 0.005": (2.3, 3.8, 13.1, 2.7),
        "tau 0.001": (3.0, 3.9, 19.6, 2.9),
        # Between the first two, where the authors' code was measured.
        "at 63 %": (2.4, 3.4, 10.4, 2.7),
    },
    "352": {
        "tau 0.01": (2.6, 2.5, 4.1, 2.8),
        "tau 0.005": (2.3, 3.9, 13.4, 2.8),
        "tau 0.001": (3.0, 4.0, 19.9, 3.0),
    },
}
#: For detection the paper says what is left of the extractor's FLOPs (table 1), not the
#: units: these means, in the proportions of the classification networks, give it.
DETECTION_POINTS = {
    "tau 0.005": (1.9, 2.9, 10.6, 2.7),
    "tau 0.001": (2.6, 3.3, 14.7, 2.9),
}
UNITS = (3, 4, 23, 3)
SHARES = (1.0, 0.9, 0.7, 0.5, 0.3, 0.15, 0.05, 0.0)
#: The same for whole networks.
MASK_SHARES = (1.0, 0.5, 0.3, 0.15)
#: Height and width of images by name.
SIZES = {
    "224": (224, 224),
    "352": (352, 352),
    "600x848": (600, 848),
    "600x1000": (600, 1000),
}
