"""What the scripts of every MMNas task share: flags, networks, and the recipes themselves.

A task is a module (`tasks.vqa`, ...) that has

- ``open_search(args)`` -> (data of the weight steps, held-out data of the architecture steps);
- ``open_training(args)`` -> split name -> data: ``train``, and those that can be scored, ``val`` and ``test``;
- ``open_checked(args, tables)`` -> the split of ``--RUN val`` or ``--RUN test``;
- ``tables(data)`` -> what a network is built for and a checkpoint must carry (vocabulary, answers, ...), plain data;
- ``build_net(args, tables, architecture, trained=False)``, ``criterion(outputs, batch)`` and ``metric(args, data)``;
- ``write_predictions(args, run, data, metric)``.

Heavy imports stand inside the functions, so that `--help` answers at once.
"""
