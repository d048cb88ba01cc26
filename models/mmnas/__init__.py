"""Models of MMNas (Yu et al., ACM MM 2020): gated search of an encoder-decoder of attention operations."""
