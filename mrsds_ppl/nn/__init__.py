"""Networks: stacked ones, encoders, activations, draws of weights; and Adam for small fits. Imports errors."""
