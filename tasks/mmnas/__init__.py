"""What the scripts of every MMNas task share: flags, networks, and the recipes themselves.

A task is a module (`tasks.vqa`, ...) that has

- ``SUMMED``: whether a gradient is that of the loss's sum over the samples, instead of its mean;
- ``KEPT``: names of arguments besides the network's sizes that a checkpoint brings along, all that scores depend on;
- ``VALIDATION``: the split that is scored in every epoch, and the score of it that ``--select_on val`` goes by;
- ``open_search(args)`` -> {"train": data of the weight steps, "held out": data of the architecture steps}, and a
  further entry if the derived architecture is scored on other data: the last entry is what it is scored on;
- ``open_training(args)`` -> split name -> data: ``train``, and those that can be scored;
- ``open_eval_split(args, tables)`` -> (name, data) of the split of ``--RUN val`` or ``--RUN test``;
- ``tables(data)`` -> what a network is built for and a checkpoint must carry (vocabulary, answers, ...), plain data;
- ``build_net(args, tables, architecture, trained=False)``;
- ``criterion(args)`` -> loss, see `engine.updates.OptimizerStep`;
- ``describe_metric(args)`` -> what its scores mean, in words, for logs and results;
- ``training_metric(args, data)`` -> metric of what training steps put out, see `engine.training.train_one_epoch`;
- ``scorer(args, run, data, precision, title)`` -> function net -> scores, `networks.scorer` where a metric will do;
- ``passes(args, data, scored)`` -> for an estimate the passes of forwards of an epoch, `networks.passes` where scoring
  the splits ``scored`` is all;
- ``before_epoch(args, run, net, data, precision)`` -> None, or what is done before the updates of every epoch, see
  `engine.supervised.train_network`; ``data`` is what ``open_search`` or ``open_training`` returned;
- ``write_predictions(args, run, data, scorer)`` -> the paths, after ``scorer`` has been called.

Heavy imports stand inside the functions, so that `--help` answers at once.
"""
