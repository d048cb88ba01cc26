"""Architecture search, independent of tasks and search spaces.

- `choice`: the choices of a search space, and the interface of a space;
- `relaxation`: how undecided candidates are combined and how their logits are trained. Each strategy has its own file:
  `mixture` (published, BM-NAS), `gates` (published, MMNas), `gdas`, `drnas`, `random_shared`, `second_order`.
  `strategies` maps names to strategies; your own is named ``module:Class``. Several strategies share `ordered_pairs`
  and `paths`; `regularizers` contains loss terms on the logits;
- `loops`: how weight steps and architecture steps alternate;
- `derive`: how an architecture is derived from the scores of the candidates. `perturbation` scores them on dev after
  the search;
- `black_box`: strategies that propose complete genotypes and receive their scores, `pareto` for several objectives, and
  `trainings`, the run that trains the proposals;
- `monitor`: what a search records in every epoch, and its result.
"""

import util  # noqa: F401  It must be imported before torch, see there.
