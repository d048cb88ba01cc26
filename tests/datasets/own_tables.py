"""A table of a stranger: four modalities, missing values, several scripts, odd pictures; and helpers."""

import csv
import wave

import numpy as np
from PIL import Image

PLOTS = ("фильм о войне", "爱情电影", "film d'été", "سيارة حمراء", 'a "quoted", plot\nof two lines', "🎬")  # noqa: RUF001
GENRES = ("drama",) * 95 + ("comedy",) * 4 + ("western",)
ALL = "--image poster --text plot --numbers year,rating --categories country --audio clip --features emb"


def write_csv(path, rows, delimiter=",", encoding="utf-8"):
    """Write dicts as a table."""
    with open(path, "w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def odd_picture(path, number):
    """A picture of one of eight modes; returns its name."""
    values = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    image, mode = Image.fromarray(values), ("RGB", "L", "P", "RGBA", "CMYK", "1", "LA", "I;16")[number % 8]
    name = f"{number}.tif" if mode == "CMYK" else f"{number}.png"
    if mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert(mode)
    image.save(path / name)
    return name


def sound(path, number):
    """A tone of 0.1 s; stereo for odd numbers."""
    rate, channels = (8000, 16000, 44100)[number % 3], 1 + number % 2
    tone = (20000 * np.sin(np.arange(rate // 10) * 2 * np.pi * 440 / rate)).astype("<i2")
    with wave.open(str(path / f"{number}.wav"), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(tone[:, None], channels, 1).tobytes())
    return f"{number}.wav"


def films(folder, count=100):
    """Rows of a table of films, whose files are written into ``folder``."""
    rng, rows = np.random.default_rng(0), []
    for number in range(count):
        np.save(folder / f"{number}.npy", rng.normal(size=5).astype(np.float32))
        row = {
            "film": f"f{number}",
            "poster": odd_picture(folder, number) if number % 5 else "",
            "plot": PLOTS[number % 6] if number % 7 else "",
            "year": 1950 + number if number % 3 else "NA",
            "rating": f"{rng.random():.3f}" if number % 4 else "",
            "country": ("FR", "中国", "US")[number % 3] if number % 9 else "",
            "clip": sound(folder, number) if number % 10 == 1 else "",
            "emb": f"{number}.npy" if number % 3 else "",
            "director": f"d{number % 13}",
            "genre": GENRES[number % 100],
        }
        rows.append(row)
    return rows
