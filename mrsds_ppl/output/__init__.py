"""What a fit leaves to others: files, figures, a page, a few lines. Imports build and what is below it."""
