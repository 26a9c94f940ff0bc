"""From a labelled DataFrame to trained weights: `data` (snapshot and loaders), `loop` (torch only)."""
