"""The old place of `SoftmaxMixture`, for recipes of your own that import it from here."""

from search.relaxation import SoftmaxMixture as SoftmaxMixture
