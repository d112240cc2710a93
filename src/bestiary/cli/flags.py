"""Flags that come from the fields of a recipe: `--name value`, `--name=value` or `name=value`."""

import difflib
from collections.abc import Collection, Iterable, Sequence

from bestiary.errors import UsageError

YES_OR_NO = ("yes", "no", "true", "false", "1", "0")


def parse_fields(
    words: Sequence[str],
    known: Iterable[str],
    other_flags: Iterable[str] = (),
    command: str = "bestiary train MODEL",
) -> dict[str, str]:
    """Field names and their text, in the order given.

    Args:
        words: what is left of the command line.
        known: field names, with underscores.
        other_flags: flags of the command itself, so that a misspelt one of them is named too.
        command: whose help lists them.

    Raises:
        UsageError: an unknown flag (the nearest is named), a flag without value, a bare word, or the same flag twice.
    """
    names, found = list(known), {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") and "=" not in word:
            raise UsageError(f"got {word!r}, wanted a flag such as --{names[0].replace('_', '-')} VALUE")
        flag, equals, value = word.removeprefix("--").partition("=")
        name = flag.replace("-", "_")
        if name.removeprefix("no_") in names and name.startswith("no_") and not equals:
            name, value, equals = name.removeprefix("no_"), "false", "="
        if name not in names:
            raise UsageError(f"no flag is called --{flag}", mend=_nearest(flag, names, other_flags, command))
        if not equals:
            value = "true" if not rest or rest[0].startswith("--") else rest.pop(0)
        if name in found:
            raise UsageError(f"--{flag} is given twice: {found[name]!r} and {value!r}", mend="Give it once")
        found[name] = value
    return found


def sort_words(
    words: Sequence[str], known: Iterable[str], switches: Collection[str], other_flags: Iterable[str], command: str
) -> tuple[list[str], dict[str, str]]:
    """Words without a flag, and the fields as `parse_fields` reads them, wherever among the words they stand.

    Args:
        words: what is left of the command line; empty ones are not there.
        known: field names, with underscores.
        switches: those that may stand without a value: what follows is theirs only if it says yes or no.
        other_flags: as for `parse_fields`.
        command: likewise.
    """
    plain, flags = [], []
    rest = [word for word in words if word]
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            plain.append(word)
            continue
        name = word.removeprefix("--").replace("-", "_")
        takes_next = "=" not in word and rest and not name.startswith("no_")
        is_switch = name in switches
        if is_switch and "=" not in word:
            said = takes_next and rest[0].lower() in YES_OR_NO
            flags.append(f"{word}={rest.pop(0) if said else 'true'}")
        else:
            flags += [word, rest.pop(0)] if takes_next else [word]
    return plain, parse_fields(flags, known, other_flags, command)


def _nearest(flag: str, names: Sequence[str], other_flags: Iterable[str], command: str) -> str:
    choices = [n.replace("_", "-") for n in names] + [f.removeprefix("--") for f in other_flags]
    close = difflib.get_close_matches(flag, choices, n=1, cutoff=0.5)
    return f"Did you mean --{close[0]}?" if close else f"`{command} --help` lists them all"
