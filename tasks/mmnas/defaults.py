"""Parts of a task that most tasks share; a task's module imports those that fit it. See `tasks.mmnas`."""


def passes(args, data, scored):
    """Forwards of an epoch where scoring the splits ``scored`` is all."""
    from tasks.mmnas import networks

    return networks.passes(args, data, scored)


def before_epoch(args, run, net, data, precision):
    """Nothing is done before an epoch."""
