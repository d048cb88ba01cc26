"""Architecture search that knows no task and no search space.

- `choice`: what is to be decided, and what a space offers to a search;
- `relaxation`: how undecided candidates act together and how their logits learn; one file per strategy
  (`mixture`, `gates`, `gdas`);
- `strategies`: what ``--strategy`` may name: these, and ``module:Class`` for one of your own;
- `loops`: how weight steps and architecture steps take turns;
- `derive`: from scores of the candidates to an architecture;
- `monitor`: what a search reports of every epoch, and its result.
"""
