"""Alias of `search.relaxation.SoftmaxMixture` at its old place, for users' recipes that import it from here."""

from search.relaxation import SoftmaxMixture as SoftmaxMixture
