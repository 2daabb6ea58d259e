"""Embeddings laid out in two dimensions, for a map."""

import warnings

import numpy as np
from jaxtyping import Float, Float64

NUM_COMPONENTS = 50  # what t-SNE is given: more would be noise, and slow
MIN_FOR_TSNE = 12
PERPLEXITY = 30.0
NUM_NEIGHBOURS = 15  # of a point, whose distances UMAP keeps


def in_two_dimensions(features: Float[np.ndarray, "clip dim"]) -> tuple[Float64[np.ndarray, "clip 2"], str]:
    """Places on a map, on which recordings with similar embeddings lie close to each other.

    Every dimension is standardised first, so that none counts by its scale alone; dimensions that do not vary are left
    out. Then UMAP of the first principal components where it is installed (the extra ``umap``), or t-SNE where
    scikit-learn is (``sklearn``), or these components alone. The same embeddings give the same places.

    Args:
        features: a vector for each recording, finite, at least one.

    Returns:
        The places, each axis stretched to 0..1; and how they were found, in words.

    Source: van der Maaten and Hinton (2008), "Visualizing Data using t-SNE", by scikit-learn; McInnes et al.
    (2018), "UMAP", by umap-learn.
    """
    distinct, number_of = np.unique(features, axis=0, return_inverse=True)  # t-SNE needs points that differ
    components = _principal_components(distinct)
    places, how = components[:, :2], "the first two principal components"
    if len(distinct) >= MIN_FOR_TSNE:
        try:
            places, name = _neighbours(components)
            how = f"{name} of the first {components.shape[1]} principal components"
        except ImportError:
            how += " (with `pip install 'melmask[umap]'` UMAP, or 'melmask[sklearn]' t-SNE, better at groups)"
    low, high = places.min(axis=0), places.max(axis=0)
    stretched = np.where(high > low, (places - low) / np.where(high > low, high - low, 1), 0.5)
    return stretched[number_of.reshape(-1)], how


def _principal_components(features: Float[np.ndarray, "clip dim"]) -> Float64[np.ndarray, "clip component"]:
    """Of the standardised features: at least two columns, of zeros where there are fewer components."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    std = centred.std(axis=0)
    varies = std > np.finfo(np.float32).eps * np.abs(features).max(axis=0)
    scaled = centred[:, varies] / std[varies]
    if not varies.any():
        return np.zeros((len(features), 2))
    left, size, right = np.linalg.svd(scaled, full_matrices=False)
    # The sign of a component is arbitrary, and differs between libraries: its largest weight is positive.
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    components = (left * size * signs)[:, :NUM_COMPONENTS]
    return np.pad(components, ((0, 0), (0, max(0, 2 - components.shape[1]))))


def _neighbours(components: Float64[np.ndarray, "clip component"]) -> tuple[Float64[np.ndarray, "clip 2"], str]:
    """Places by UMAP where it is installed, else by t-SNE, and the name of the method."""
    try:
        from umap import UMAP
    except ImportError:
        return _tsne(components), "t-SNE"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        num_neighbours = min(NUM_NEIGHBOURS, len(components) - 1)
        placed = UMAP(n_neighbors=num_neighbours, random_state=0, n_jobs=1).fit_transform(components)
    return np.asarray(placed, np.float64), "UMAP"


def _tsne(components: Float64[np.ndarray, "clip component"]) -> Float64[np.ndarray, "clip 2"]:
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(components) - 1) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        placed = TSNE(perplexity=perplexity, init="pca", random_state=0, n_jobs=1).fit_transform(components)
    return placed.astype(np.float64)
