"""How well groups that were found agree with true classes: normalised mutual information."""

import math

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from bestiary.metrics.averages import precise
from bestiary.records import require


def normalized_mutual_information(labels: Int64[Tensor, " N"], clusters: Int64[Tensor, " M"]) -> float:
    """`2 I(labels; clusters) / (H(labels) + H(clusters))`, 0..1.

    Convention: the arithmetic mean of both entropies below; 1 where both are a single group; NaN for nothing. Names of
    the groups do not matter. Not corrected for chance: more clusters score higher.

    Raises:
        RecordError: not as many labels as clusters.
    """
    require(len(labels) == len(clusters), "clusters", f"{len(clusters)} numbers", f"{len(labels)}, as labels")
    if not len(labels):
        return math.nan
    rows = np.unique(labels.cpu().numpy(), return_inverse=True)[1]
    columns = np.unique(clusters.cpu().numpy(), return_inverse=True)[1]
    width = int(columns.max()) + 1
    joint = np.bincount(rows * width + columns, minlength=(int(rows.max()) + 1) * width).reshape(-1, width)
    both, either = _entropy(joint.ravel()), _entropy(joint.sum(1)) + _entropy(joint.sum(0))
    return min(1.0, max(0.0, 2 * (either - both) / either)) if either > 0 else 1.0


def kmeans_nmi(features: Float[Tensor, "N D"], labels: Int64[Tensor, " N"], seed: int = 0) -> float:
    """NMI of scikit-learn's k-means with as many clusters as classes (Oh Song et al., CVPR 2016).

    The clusters, not the measure, may differ between versions of scikit-learn. NaN for nothing.

    Raises:
        RecordError: NaN or infinity among the features.
    """
    from sklearn.cluster import KMeans

    if not len(labels):
        return math.nan
    table = precise(features).cpu().numpy()
    require(bool(np.isfinite(table).all()), "features", "NaN or infinity", "numbers")
    count = len(np.unique(labels.cpu().numpy()))
    found = KMeans(count, n_init="auto", random_state=seed).fit_predict(table)
    return normalized_mutual_information(labels, labels.new_tensor(found.tolist()))


def _entropy(counts: Int64[np.ndarray, " K"]) -> float:
    """Natural entropy of the shares of K counts."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
