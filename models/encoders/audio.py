"""Audio preparation: the input of a pretrained transformer, or log-mel bands for a small convolutional network."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import torch

from models.encoders import libraries
from models.encoders.hidden_states import HiddenStates, build_hidden_states, check_source

RATE = 16_000
BANDS = 64
# Window and hop of the spectrogram in samples: 25 and 10 ms.
_WINDOW, _STEP = 400, 160
_QUIET = 1e-5


@dataclasses.dataclass(frozen=True)
class LogMel:
    """Log-mel spectrograms: energies in `BANDS` bands that are evenly spaced on the mel scale, 100 frames per second.

    Args:
        seconds: Longer sounds are truncated to this length.
    """

    seconds: float

    def __call__(self, sounds: list) -> dict[str, torch.Tensor]:
        """Prepare a batch of sounds.

        Args:
            sounds: (samples, rate) pairs; None for a missing sound, whose length is 0.

        Returns:
            ``values``, float32 (N, T, BANDS), padded with zeros, and ``length``, int64 (N,).
        """
        made = [
            torch.zeros(0, BANDS) if sound is None else log_mel(resampled(*sound)[: self._most()]) for sound in sounds
        ]
        values = torch.zeros(len(made), max(1, *map(len, made)), BANDS)
        for row, bands in zip(values, made, strict=True):
            row[: len(bands)] = bands
        return {"values": values, "length": torch.tensor([len(bands) for bands in made])}

    def _most(self):
        return round(self.seconds * RATE)


def resampled(samples: Any, rate: int, target: int = RATE) -> torch.Tensor:
    """Resample a sound by truncating or zero-padding its spectrum: (samples,) -> float32 (samples * target / rate,)."""
    wave = torch.as_tensor(np.asarray(samples, dtype=np.float32))
    size = round(len(wave) * target / rate)
    if rate == target or not size:
        return wave
    spectrum = torch.fft.rfft(wave)
    kept = torch.zeros(size // 2 + 1, dtype=spectrum.dtype)
    shared = min(len(kept), len(spectrum))
    kept[:shared] = spectrum[:shared]
    return torch.fft.irfft(kept, n=size) * (size / len(wave))


def log_mel(wave: torch.Tensor) -> torch.Tensor:
    """Log-mel spectrogram of a sound at `RATE`: float32 (samples,) -> float32 (T, BANDS), values about -2.5..1.5."""
    # torch pads by reflection, which requires at least half a window.
    wave = torch.nn.functional.pad(wave, (0, max(0, _WINDOW - len(wave))))
    window = torch.hann_window(_WINDOW)
    spectrum = torch.stft(wave, _WINDOW, _STEP, window=window, return_complex=True).abs().square()
    energy = (_filters() @ spectrum).clamp(min=_QUIET).log10()
    return ((energy + 2) / 2).T.contiguous()


@functools.cache
def _filters():
    """Triangular filters, float32 (BANDS, bins), evenly spaced on the mel scale (HTK's formula)."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    bins = np.linspace(0, RATE / 2, _WINDOW // 2 + 1)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.tensor(np.maximum(0, np.minimum(rise, fall)), dtype=torch.float32)


@dataclasses.dataclass(frozen=True)
class AudioPreparation:
    """The input of a transformers audio model, computed by the model's own feature extractor.

    Args:
        name: Folder or published name of the model.
        seconds: Longer sounds are truncated to this length.
        content: The extractor's settings, so that features cached under other settings are not used.
    """

    name: str
    seconds: float
    content: str

    def __call__(self, sounds: list) -> dict[str, torch.Tensor]:
        """Return the extractor's tensors for (samples, rate) pairs; None becomes a tenth of a second of silence."""
        extractor = _extractor(self.name)
        rate = extractor.sampling_rate
        quiet = torch.zeros(rate // 10)
        waves = [quiet if sound is None else resampled(sound[0], sound[1], rate) for sound in sounds]
        short = [wave[: round(self.seconds * rate)].numpy() for wave in waves]
        options = {"sampling_rate": rate, "return_tensors": "pt", "return_attention_mask": True}
        return dict(
            extractor(short, padding=getattr(extractor, "nb_max_frames", None) is None or "max_length", **options)
        )


@functools.lru_cache(maxsize=4)
def _extractor(name):
    transformers = libraries.import_library("transformers", f"transformers:{name}")
    return transformers.AutoFeatureExtractor.from_pretrained(name)


def build_audio_transformer(
    name: str, modality: str, weights: str, pool: tuple[int, int], seconds: float, **options: Any
) -> HiddenStates:
    """Build an audio model of transformers (wav2vec 2.0, HuBERT, Whisper's encoder, ...).

    Args:
        seconds: Longer sounds are truncated to this length.
        name, modality, weights, pool, options: See `build_hidden_states`.

    Raises:
        UserError: see `build_hidden_states`.
    """
    libraries.import_library("transformers", f"{modality}=transformers:{name}")
    check_source(name, modality)
    with libraries.fetching(f"transformers:{name}", modality, libraries.FOLDER_REMEDY):
        content = _extractor(name).to_json_string()
    return build_hidden_states(name, modality, weights, pool, AudioPreparation(name, seconds, content), **options)
