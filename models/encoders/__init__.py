"""Encoders for data of one's own: a network with taps for each kind of modality."""
