"""Architecture search, independent of tasks and search spaces.

- `choice`: the choices of a search space, and the interface of a space;
- `relaxation`: how undecided candidates are combined and how their logits learn; one file per strategy
  (`mixture`, `gates`, `gdas`), named in `strategies`, or ``module:Class`` for one of your own;
- `loops`: how weight steps and architecture steps alternate;
- `derive`: how an architecture is derived from the scores of the candidates;
- `monitor`: what a search reports in every epoch, and its result.
"""
