"""Files of Neurodata Without Borders, as labs write and share them, to Trials. Imports data and errors only."""
