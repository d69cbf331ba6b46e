"""Keras and its backend, imported with this module and quietly: for the process that others are forked from."""

from lightmill.models.networks import keras

keras()
