import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from bestiary.deploy.sessions import open_session
from bestiary.errors import CheckpointError, UsageError
from bestiary.verbs.exporting import ExportReport

SHAPE = (2, 3, 32, 32)
Exported = Callable[[str], ExportReport]


def test_compiled_for_one_shape_it_says_the_same_and_takes_no_other(exported: Exported) -> None:
    graph = exported("resnet18_cifar").path
    images = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)).numpy()
    (wanted,) = open_session(graph, "openvino", threads=1).run(images)
    fixed = open_session(graph, "openvino", threads=1, shape=SHAPE)
    np.testing.assert_allclose(fixed.run(images)[0], wanted, atol=1e-5)
    with pytest.raises(UsageError, match=r"got images of shape \(1, 3, 32, 32\), wanted \(2, 3, 32, 32\)"):
        fixed.run(images[:1])


def test_a_shape_that_the_graph_cannot_have(exported: Exported) -> None:
    graph = exported("resnet18_cifar").path
    with pytest.raises(CheckpointError, match="openvino cannot read the graph"):
        open_session(graph, "openvino", threads=1, shape=(1, 4, 32, 32))
    with pytest.raises(UsageError, match="onnxruntime takes any shape"):
        open_session(graph, "onnxruntime", shape=SHAPE)


SIGNALLED = """
import faulthandler, os, signal, sys
from pathlib import Path
from bestiary.deploy.sessions import open_session
faulthandler.enable()
first, second = (open_session(Path(sys.argv[1]), "openvino", threads=1) for _ in range(2))
del first
del second
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_signals_are_heard_after_sessions_have_ended_in_the_order_of_their_beginning(exported: Exported) -> None:
    words = [sys.executable, "-c", SIGNALLED, str(exported("resnet18_cifar").path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
