"""Architecture search, independent of tasks and search spaces.

- `choice`: the choices of a search space, and the interface of a space;
- `relaxation`: how undecided candidates are combined and how their logits learn; one file per strategy
  (`mixture`, `gates`, `gdas`, `drnas`, `random_shared`, `second_order`), named in `strategies`, or ``module:Class`` for
  one of your own; `ordered_pairs` and `paths` are shared by several of them, `regularizers` has terms on the logits;
- `loops`: how weight steps and architecture steps alternate;
- `derive`: how an architecture is derived from the scores of the candidates; `perturbation` scores them on dev after
  the search;
- `black_box`: strategies that propose whole genotypes and are told their scores, `pareto` for several objectives, and
  `trainings`, the run that trains what they propose;
- `monitor`: what a search reports in every epoch, and its result.
"""

import util  # noqa: F401  Before torch, which modules of this package import first: see there.
