"""Pages that show results in a browser, each one file without scripts or network."""
