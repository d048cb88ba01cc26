"""How every MMNas script starts: its command line, its processes, its recipe."""

from engine import arguments
from engine.launch import launch
from tasks.mmnas import flags


def search(task, main, parser, argv, demo):
    """Run a search script.

    Args:
        task: The task's module, see `tasks.mmnas`.
        main: The script's own `main`, which ``--GPU`` starts once per process.
        parser: Its parser.
        argv: Its arguments; None takes this process's.
        demo: Values that ``--demo`` changes.

    Returns:
        The result that ``result.json`` holds, or None where other processes did the work.
    """
    args = arguments.parse_args(parser, argv, demo=demo)
    if launch(main, argv, args.GPU, args.device):
        return None
    from tasks.mmnas import recipes

    return recipes.search(task, args)


def train(task, main, parser, argv, demo):
    """Run a training script; as `search`."""
    args = flags.parse_train(task, parser, argv, demo)
    if launch(main, argv, args.GPU, args.device):
        return None
    from tasks.mmnas import recipes

    return recipes.train(task, args)
