"""RoIAlign and NMS beside ONNX Runtime's, which were written independently from the operators' definitions."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from bestiary import ops


def session(node: onnx.NodeProto, inputs: dict[str, int], output: tuple[str, int]) -> onnxruntime.InferenceSession:
    """A graph of one node whose inputs and output have the given element types and any shape."""
    values = [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs.items()]
    result = helper.make_tensor_value_info(output[0], output[1], None)
    graph = helper.make_graph([node], "one", values, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 1, 2])
def test_roi_align(ratio: int, aligned: bool) -> None:
    g = torch.Generator().manual_seed(0)
    features = torch.randn(2, 4, 20, 26, generator=g)
    corner = torch.rand(60, 2, generator=g) * 90 - 5
    boxes = torch.cat([corner, corner + 1 + torch.rand(60, 2, generator=g) * 60], dim=1)
    picture = torch.randint(0, 2, (60,), generator=g)
    node = helper.make_node(
        "RoiAlign",
        ["x", "boxes", "picture"],
        ["y"],
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
        output_height=5,
        output_width=7,
        sampling_ratio=ratio,
        spatial_scale=0.25,
    )
    kinds = {"x": TensorProto.FLOAT, "boxes": TensorProto.FLOAT, "picture": TensorProto.INT64}
    feed = {"x": features.numpy(), "boxes": boxes.numpy(), "picture": picture.numpy()}
    (wanted,) = session(node, kinds, ("y", TensorProto.FLOAT)).run(None, feed)
    rois = torch.cat([picture[:, None].float(), boxes], dim=1)
    got = ops.roi_align(features, rois, (5, 7), 0.25, ratio, aligned)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms(threshold: float) -> None:
    g = torch.Generator().manual_seed(1)
    corner = torch.rand(800, 2, generator=g) * 200
    boxes = torch.cat([corner, corner + 5 + torch.rand(800, 2, generator=g) * 60], dim=1)
    scores = torch.rand(800, generator=g)
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou"], ["kept"])
    kinds = {
        "boxes": TensorProto.FLOAT,
        "scores": TensorProto.FLOAT,
        "most": TensorProto.INT64,
        "iou": TensorProto.FLOAT,
    }
    feed = {
        "boxes": boxes[None].numpy(),
        "scores": scores[None, None].numpy(),
        "most": np.array([800]),
        "iou": np.array([threshold], np.float32),
    }
    (kept,) = session(node, kinds, ("kept", TensorProto.INT64)).run(None, feed)
    assert ops.nms(boxes, scores, threshold).tolist() == kept[:, 2].tolist()
