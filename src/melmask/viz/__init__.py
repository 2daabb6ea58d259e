"""Every figure: masks, predictions, curves and per-class results."""
