"""What networks see: layers, receptive fields, activations, and ways back from a unit to the pixels.

from bestiary import inspect

inspect.layer_table(net, (1, 3, 224, 224))
inspect.deconvnet(net, pixels, "layer3", unit=17).signal
inspect.class_map(net, pixels).heat
"""

from bestiary.inspect.class_maps import ClassMap, class_map
from bestiary.inspect.feature_space import Features, gather_features, mosaic, to_plane
from bestiary.inspect.fields import MeasuredField, field_box, layer_field, measured_field
from bestiary.inspect.layers import Tap, Unit, activations, find_layer, strongest_positions, strongest_units
from bestiary.inspect.maximising import Ball, Box, Maximised, Prior, maximise, total_variation
from bestiary.inspect.painting import activation_tiles, first_filters, heat_picture, signal_picture
from bestiary.inspect.patches import Patch, top_patches
from bestiary.inspect.signals import WAYS, Projection, Way, deconvnet, gradient, guided, project, saliency
from bestiary.inspect.table import LayerRow, LayerTable, layer_table
from bestiary.inspect.views import View, view_of

__all__ = [
    "WAYS", "Ball", "Box", "ClassMap", "Features", "LayerRow", "LayerTable", "Maximised", "MeasuredField", "Patch",
    "Prior", "Projection", "Tap", "Unit", "View", "Way", "activation_tiles", "activations", "class_map", "deconvnet",
    "field_box", "find_layer", "first_filters", "gather_features", "gradient", "guided", "heat_picture", "layer_field",
    "layer_table", "maximise", "measured_field", "mosaic", "project", "saliency", "signal_picture",
    "strongest_positions", "strongest_units", "to_plane", "top_patches", "total_variation", "view_of",
]  # fmt: skip
