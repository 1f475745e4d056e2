"""The database: assets, readings, what is missing and why. SQL lives in queries/ and migrations/, named."""
