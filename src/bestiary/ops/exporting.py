"""Whether a graph is being made for another runtime."""

import torch


def exporting() -> bool:
    """True while tracing or exporting: operators then show only what an exporter can translate."""
    inside_export = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return bool(torch.jit.is_tracing() or torch.onnx.is_in_onnx_export() or inside_export())
