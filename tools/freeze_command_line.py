#!/usr/bin/env python
"""Record every flag of every script, so that a changed command line shows in the diff.

  python tools/freeze_command_line.py

It rewrites tests/data/command_line.json, which tests/test_command_line.py compares with the scripts. The file records
flags, their other spellings, defaults, choices, types, and their names in args.json, but no help texts.
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.cli import run_cli
from util.files import read_json, write_text

ROOT = Path(__file__).resolve().parent.parent
FROZEN = ROOT / "tests" / "data" / "command_line.json"
COMMAND = "python tools/freeze_command_line.py"
FOLDERS = (".", "datasets", "benchmarks", "tools")
# The range of a flag is recorded as the ones of these numbers that it accepts.
PROBES = ("-1", "0", "0.5", "1", "2", "1e30")


def get_args_parser():
    return argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)


def main(argv=None):
    get_args_parser().parse_args(argv)
    old = read_json(FROZEN) if FROZEN.exists() else {}
    new = command_lines()
    write_text(FROZEN, dumps(new))
    for line in changes(old, new):
        print(line)
    print(f"wrote {FROZEN.relative_to(ROOT)}: {len(new)} scripts, {sum(map(len, new.values()))} flags")


def command_lines():
    """Flags of every script: script -> flag -> description.

    A script is a Python file with a function ``get_args_parser``. A subcommand counts as a script of its own.
    """
    found = {}
    for path in scripts():
        found |= describe_parser(path.relative_to(ROOT).as_posix(), load(path).get_args_parser())
    return found


def scripts():
    """Paths of all scripts that have flags, sorted."""
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.py"))
    return [path for path in paths if "\ndef get_args_parser(" in path.read_text(encoding="utf-8")]


def load(path):
    """The module of a script."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def describe_parser(name, parser):
    """Flags of a parser and of its subcommands: script -> flag -> description."""
    flags, found = {}, {}
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        if isinstance(action, argparse._SubParsersAction):
            for subcommand, inner in action.choices.items():
                found |= describe_parser(f"{name} {subcommand}", inner)
        else:
            flags[action.option_strings[0] if action.option_strings else action.dest] = _describe(action)
    for other, flag in getattr(parser, "spellings", {}).items():
        for first, about in flags.items():
            if flag == first or flag in about.get("spellings", ()):
                about["spellings"] = [*about.get("spellings", [first]), other]
    return {name: dict(sorted(flags.items())), **found}


def _describe(action):
    described = {"default": _plain(action.default)}
    if len(action.option_strings) > 1:
        described["spellings"] = list(action.option_strings)
    if action.option_strings and action.dest != _usual_dest(action.option_strings[0]):
        described["dest"] = action.dest
    if action.type is not None:
        described["type"] = getattr(action.type, "__name__", str(action.type))
        if _accepts(action.type, "1") and not _accepts(action.type, "x"):
            described["accepts"] = [probe for probe in PROBES if _accepts(action.type, probe)]
    for name in ("choices", "nargs", "const"):
        if getattr(action, name) is not None:
            described[name] = _plain(getattr(action, name))
    if action.required and action.option_strings:
        described["required"] = True
    return described


def _usual_dest(flag):
    return flag.lstrip("-").replace("-", "_")


def _accepts(kind, text):
    try:
        kind(text)
    except (ValueError, TypeError, argparse.ArgumentTypeError):
        return False
    return True


def _plain(value):
    """``value`` after a round trip through JSON."""
    return json.loads(json.dumps(list(value) if isinstance(value, (tuple, set, range)) else value, default=str))


def dumps(lines):
    """The JSON text: one line per flag."""
    scripts = []
    for script, flags in lines.items():
        rows = ",\n".join(f"  {json.dumps(flag)}: {json.dumps(about)}" for flag, about in flags.items())
        scripts.append(f"{json.dumps(script)}: {{\n{rows}\n}}")
    return "{\n" + ",\n".join(scripts) + "\n}\n"


def changes(old, new):
    """What differs between two results of `command_lines`, one line each."""
    lines = []
    for script in sorted({*old, *new}):
        if script not in new or script not in old:
            lines.append(f"{script}: {'new' if script in new else 'missing'}")
            continue
        before, after = old[script], new[script]
        for flag in sorted({*before, *after}):
            if flag not in after or flag not in before:
                lines.append(f"{script} {flag}: {'new' if flag in after else 'missing'}")
                continue
            for fact in sorted({*before[flag], *after[flag]}):
                was, now = (json.dumps(side[flag].get(fact)) for side in (before, after))
                if was != now:
                    lines.append(f"{script} {flag}: {fact} {was} -> {now}")
    return lines


if __name__ == "__main__":
    run_cli(main)
