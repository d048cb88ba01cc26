"""How a script ends: a user's mistake is one clear line and a non-zero exit, never a traceback."""

import sys


class UserError(Exception):
    """A mistake that the user can mend.

    The message is shown as it is. It names the file or flag, says what was expected, and gives
    the remedy (a command or a flag).
    """


def run_cli(main):
    """Run ``main()`` as a script: user errors exit with 2, an interrupt with 130."""
    _print_any_name()
    try:
        main()
    except UserError as error:
        print(f"error: {_message(error)}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not any(sign in str(error) for sign in ("allocate memory", "out of memory")) and str(error):
            raise
        print(f"error: not enough memory: {' '.join(str(error).split())[:200]}; use smaller sizes", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted; what was saved so far is kept", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone: not a fault, and nothing left to say.
        sys.stderr.close()
        sys.exit(141)


def _print_any_name():
    """Let a file name be printed whatever its bytes and the terminal's encoding are, as ``\\udcd5`` where need be."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _message(error):
    # A data loading process hands its error on with a traceback in front of the message.
    message = str(error).rsplit(f"{UserError.__name__}: ", 1)[-1].strip()
    # A name of a file, too, may hold a line end.
    return " ".join(message.splitlines())
