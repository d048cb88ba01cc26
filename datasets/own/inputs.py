"""The inputs of a sample, and the columns that they come from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from util.cli import UserError

RESERVED = {"label", "id", "index"}


class Input(NamedTuple):
    """One modality.

    name: Name of the modality.
    form: ``picture``, ``audio``, ``text``, ``table`` (numbers and categories) or ``array``.
    columns: Columns that it is made of; if ``form`` is ``table``, only those with numbers.
    flag: The flag that named it, for messages.
    categories: Columns with categories, if ``form`` is ``table``.
    """

    name: str
    form: str
    columns: tuple[str, ...]
    flag: str
    categories: tuple[str, ...] = ()

    @property
    def all_columns(self) -> tuple[str, ...]:
        """``columns``, then ``categories``."""
        return self.columns + self.categories


def inputs_of(asked: Mapping[str, Sequence[str]], forms: Mapping[str, str]) -> list[Input]:
    """Make the inputs that flags describe.

    ``--image poster`` makes a modality ``image``; ``--image poster,backdrop`` makes two modalities with the names of
    their columns (see `input_name`); ``--image cover=poster`` makes one called ``cover``. All columns of a ``table``
    flag form one modality, which has the name of the flag, or ``facts`` with ``--numbers facts=year,rating``. Numbers
    and categories of the same name form one modality.

    Args:
        asked: dict flag (without dashes) -> its values.
        forms: dict flag -> form of its inputs, see `Input`.

    Raises:
        UserError: two inputs have the same name, or a name cannot be used.
    """
    found: list[Input] = []
    for flag, values in asked.items():
        plain = sum(len(value.split(",")) for value in values if "=" not in value)
        for value in values:
            name, equals, columns = value.rpartition("=")
            listed = tuple(column.strip() for column in columns.split(",") if column.strip())
            if not listed:
                raise UserError(f"--{flag} {value}: names no column")
            if forms[flag] == "table":
                _add_table(found, name or flag, flag, listed)
            elif equals and len(listed) > 1:
                raise UserError(f"--{flag} {value}: a name can have only one column; expected NAME=COLUMN")
            else:
                named = [(name, listed[0])]
                if not equals:
                    named = [(flag if plain == 1 else input_name(one), one) for one in listed]
                found += [Input(one, forms[flag], (column,), f"--{flag}") for one, column in named]
    return found


def input_name(column: str) -> str:
    """Name of the input that a column makes: the column's name, changed as little as `check_names` requires."""
    name = re.sub(r"\W", "_", column)
    name = name if name[:1].isalpha() else f"column_{name}"
    return f"{name}_" if _is_taken(name) else name


def _is_taken(name):
    from torch import nn

    # Networks keep the parts of an input under its name, which must not be an attribute of the containers, like `type`.
    attributes = any(hasattr(container(), name) for container in (nn.ModuleDict, nn.ParameterDict))
    return attributes or name in RESERVED or name.endswith(("_present", "_features"))


def _add_table(found, name, flag, columns):
    before = next((one for one in found if one.name == name and one.form == "table"), Input(name, "table", (), ""))
    merged = before._replace(flag=f"--{flag}")
    if flag == "numbers":
        merged = merged._replace(columns=before.columns + columns)
    else:
        merged = merged._replace(categories=before.categories + columns)
    if before in found:
        found[found.index(before)] = merged
    else:
        found.append(merged)


def check_names(inputs: Sequence[Input]) -> None:
    """Check that the names are unique and can be used in flags, files and networks.

    Raises:
        UserError: there are no inputs, or a name occurs twice or cannot be used.
    """
    if not inputs:
        raise UserError(
            "no inputs: name columns with --image, --text, --audio, --numbers, --categories or --features, or --arrays"
        )
    for one in inputs:
        if _is_taken(one.name) or not re.fullmatch(r"[^\W\d_]\w*", one.name):
            raise UserError(
                f"{one.flag} {one.columns[0]}: {one.name!r} cannot be the name of an input; give it one of letters,"
                f" digits and _, as in {one.flag} NAME={one.columns[0]}"
            )
    names = [one.name for one in inputs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two inputs are called {twice}; give one another name, as in --image NAME=COLUMN")
