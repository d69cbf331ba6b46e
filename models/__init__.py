"""Arrays in, probabilities out: networks, trees, calibration, bundles."""
