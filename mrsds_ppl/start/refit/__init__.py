"""Networks fitted to smoothed paths. Imports models, nn, ppl, statespace and train.regimen."""
