"""MMNas (Yu et al., ACM MM 2020): encoder-decoders of attention operations, searched with gates."""
