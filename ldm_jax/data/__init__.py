"""Where training examples come from: sources, transforms, loaders and the embedded dataset."""
