"""A method of proposing boxes as plain JSON, with what it has learned, so that a file can name it and be believed."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from bestiary.errors import CheckpointError, UsageError
from bestiary.layers.learned import make_room
from bestiary.proposals.methods import build
from bestiary.proposals.proposer import Proposer


def describe(proposer: Proposer) -> dict[str, Any]:
    """What `rebuild` makes the same method from.

    Returns:
        "method": its name in `bestiary.proposals.methods`; None where it cannot be built again: the user's own.
        "arguments": those that it was built by.
        "learned": name -> "dtype", "shape" and "base64" (little-endian, row by row) of what it has learned.
    """
    learned = {name: _packed(value) for name, value in proposer.state_dict().items()}
    said = {"method": proposer.name, "arguments": dict(proposer.arguments), "learned": learned}
    try:
        is_known = rebuild(said).identity() == proposer.identity()
    except (UsageError, CheckpointError):  # a name of the user's own, or a known one that holds something else
        is_known = False
    return said if is_known else {"method": None, "arguments": {}, "learned": {}}


def rebuild(said: Mapping[str, Any]) -> Proposer:
    """The method that `describe` described; without "learned", one that has learned nothing.

    Raises:
        UsageError: no method or option is called so.
        CheckpointError: what it has learned is broken, or not this method's.
    """
    proposer = build(said["method"], said["arguments"])
    try:
        if "learned" in said:
            state = {name: _unpacked(packed) for name, packed in said["learned"].items()}
            make_room(proposer, state)
            proposer.load_state_dict(state)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, binascii.Error) as error:
        message = f"what the proposals' method {said['method']} has learned cannot be read ({error})"
        raise CheckpointError(message, mend="Export again") from error
    return proposer


def _packed(value: Shaped[Tensor, "..."]) -> dict[str, Any]:
    array = value.cpu().numpy()
    text = base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "base64": text}


def _unpacked(packed: Mapping[str, Any]) -> Shaped[Tensor, "..."]:
    kind = np.dtype(packed["dtype"]).newbyteorder("<")
    array = np.frombuffer(base64.b64decode(packed["base64"], validate=True), kind).reshape(packed["shape"])
    value = torch.from_numpy(array.astype(kind.newbyteorder("=")))
    return torch.empty(value.shape, dtype=value.dtype).copy_(value)  # NumPy gives what is empty steps of nothing
