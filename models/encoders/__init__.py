"""Encoders for your own data: one kind of network with taps for each kind of modality."""
