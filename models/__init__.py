"""Networks: genotypes and fusion networks (BM-NAS), encoder-decoders (MMNas), backbones and encoders."""
