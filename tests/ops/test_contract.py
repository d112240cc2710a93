"""What every operator promises its reader."""

import inspect
import sys

import pytest

from bestiary import ops

FUNCTIONS = [name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_convention_is_written_with_the_operator_or_at_the_head_of_its_module(name: str) -> None:
    function = getattr(ops, name)
    texts = (function.__doc__ or "", sys.modules[function.__module__].__doc__ or "")
    assert any("Convention:" in text for text in texts)
