"""The old place of `search.relaxation.SoftmaxMixture`, for copies of recipes that import it from here."""

from search.relaxation import SoftmaxMixture as SoftmaxMixture
