"""A method of proposing boxes as a system's constructor is told it: a name, and options as text."""

import inspect
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bestiary.errors import UsageError
from bestiary.proposals.methods import build, find
from bestiary.proposals.proposer import Proposer

WORDS = {"true": True, "false": False, "none": None}


def chosen_proposer(name: str, options: Sequence[str] = ()) -> Proposer:
    """The method called `name` of `bestiary.proposals.methods`.

    Args:
        name: of the method.
        options: arguments of its constructor, each written `name=value`; of several values `name=value+value`.

    Raises:
        UsageError: no method or option is called so, or a value does not fit.
    """
    method = find(name).build
    hints = get_type_hints(method.__init__ if inspect.isclass(method) else method)
    given: dict[str, Any] = {}
    for text in options:
        option, equals, value = text.partition("=")
        if not equals or not option.strip():
            raise UsageError(f"got {text!r}, wanted name=value", where="proposal_options")
        option = option.strip().replace("-", "_")
        # `build` names the nearest of an unknown option.
        given[option] = _value(value.strip(), hints[option], text) if option in hints else value
    return build(name, given)


def _value(text: str, kind: Any, option: str) -> Any:
    if get_origin(kind) is Sequence:
        return tuple(_value(part, get_args(kind)[0], option) for part in text.split("+") if part)
    kinds = {type(a) if get_origin(kind) is Literal else a for a in get_args(kind)} or {kind}
    for read in (_word, int, float, str):
        try:
            value = read(text)
        except (KeyError, ValueError):
            continue
        if type(value) in kinds:
            return value
    names = ", ".join(sorted("none" if k is type(None) else k.__name__ for k in kinds))
    raise UsageError(f"got {option!r}, wanted {names}", where="proposal_options")


def _word(text: str) -> bool | None:
    return WORDS[text.lower()]
