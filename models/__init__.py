"""Networks: genotypes, the bilevel fusion network and its backbones."""
