"""Architecture search that knows no task and no search space.

- `choice`: what is to be decided, and what a space offers to a search;
- `relaxation`: how undecided candidates act together and how their logits learn; one file per strategy
  (`mixture`, `gates`, `gdas`, `drnas`, `random_shared`, `second_order`), named in `strategies`; `ordered_pairs` and
  `paths` hold what several of them need, `regularizers` terms on the logits;
- `loops`: how weight steps and architecture steps take turns;
- `derive`: from scores of the candidates to an architecture; `perturbation` scores them on dev after the search;
- `monitor`: what a search reports of every epoch, and its result.
"""
